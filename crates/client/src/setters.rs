//! The methods by which options are set one after the other.

/// Declares for each field a method that sets it, of the name that the field has.
macro_rules! setters {
    ($($field:ident: $type:ty,)+) => {$(
        #[doc = concat!("Sets [`Self::", stringify!($field), "`](Self#structfield.", stringify!($field), ").")]
        #[must_use]
        pub fn $field(mut self, $field: impl Into<$type>) -> Self {
            self.$field = $field.into();
            self
        }
    )+};
}

/// Declares the methods that the options of all protocols over a WebSocket have: how to get there, and
/// what the upgrade says.
macro_rules! upgrade_setters {
    () => {
        $crate::setters::setters! {
            trust: $crate::net::tls::Trust,
            headers: tokio_tungstenite::tungstenite::http::HeaderMap,
            proxy: $crate::proxy::Proxy,
            resolver: $crate::net::resolve::Resolver,
            timeouts: Timeouts,
        }

        /// Adds a header of the upgrade to [`Self::headers`](Self#structfield.headers), for a proxy
        /// that asks for it.
        #[must_use]
        pub fn header(
            mut self,
            name: tokio_tungstenite::tungstenite::http::HeaderName,
            value: tokio_tungstenite::tungstenite::http::HeaderValue,
        ) -> Self {
            self.headers.append(name, value);
            self
        }
    };
}

pub(crate) use {setters, upgrade_setters};
