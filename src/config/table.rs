//! How settings are declared: once, with their type, their default and their help.

use super::value::Kind;

/// What the command line, the file and the environment need to know about a setting.
#[derive(Debug)]
pub(super) struct Setting {
    /// The key of the file; the flag has dashes for its underscores.
    pub(super) key: &'static str,
    /// How it is written.
    pub(super) kind: Kind,
    /// The default, as an operator would write it; `None` where there is none, or
    /// where it depends on the machine.
    pub(super) default: Option<&'static str>,
    /// What stands for the value in the help.
    pub(super) value_name: &'static str,
    /// One line of help.
    pub(super) help: &'static str,
    /// The part of the help that it stands in.
    pub(super) heading: &'static str,
    /// Whether a running relay takes another value over; else that needs a restart.
    pub(super) is_live: bool,
}

/// A struct of settings beside another that was read later.
pub(super) trait Compared {
    /// The keys whose values are not the same.
    fn differing(&self, other: &Self) -> Vec<&'static str>;

    /// Takes the values of the settings that are live.
    fn take_live(&mut self, new: &Self);
}

/// Declares a struct of settings: its fields, its `SETTINGS`, and how it is read.
///
/// A setting is `field: Type ["VALUE"] or "default" in range;`, where the default and the
/// range may be left out, and `field as "key"` gives a key that is not the field's name.
/// `["VALUE"; live]` is one that a running relay takes over.
/// The first line of its doc is its help. What is `made of` several settings follows.
macro_rules! settings {
    (
        $(#[$meta:meta])*
        $vis:vis struct $name:ident {
            $($heading:literal {
                $(
                    #[doc = $help:literal]
                    $(#[doc = $doc:literal])*
                    $field:ident $(as $key:literal)?: $type:ty
                        [$value_name:literal $(; $live:ident)?]
                        $(or $default:literal)? $(in $range:expr)?;
                )*
            })*
        }
        $(made of several {
            $($(#[doc = $made_doc:literal])* $made:ident: $made_type:ty = $make:expr;)*
        })?
    ) => {
        $(#[$meta])*
        $vis struct $name {
            $($(#[doc = $help] $(#[doc = $doc])* pub $field: $type,)*)*
            $($($(#[doc = $made_doc])* pub $made: $made_type,)*)?
        }

        impl $name {
            pub(in crate::config) const SETTINGS: &'static [$crate::config::table::Setting] = &[$($(
                $crate::config::table::Setting {
                    key: $crate::config::table::key!($field $($key)?),
                    kind: <$type as $crate::config::value::Value>::KIND,
                    default: $crate::config::table::option!($($default)?),
                    value_name: $value_name,
                    help: $help.trim_ascii(),
                    heading: $heading,
                    is_live: $crate::config::table::is_live!($($live)?),
                },
            )*)*];

            /// Reads all its settings; all that are wrong are the error.
            pub(in crate::config) fn read(
                layers: &$crate::config::Layers,
            ) -> Result<Self, $crate::config::Error> {
                let mut mistakes = $crate::config::error::Mistakes::default();
                $($(
                    let $field = {
                        let key = $crate::config::table::key!($field $($key)?);
                        let read: Result<$type, _> = layers.read_as(key, $value_name);
                        $(let read = read.and_then(|value| {
                            layers.check_range(key, &value, &$range)?;
                            Ok(value)
                        });)?
                        mistakes.take(read)
                    };
                )*)*
                $($(let $made: Option<$made_type> = mistakes.take($make(layers));)*)?
                mistakes.end()?;
                let is_there = "what could not be read is a mistake";
                Ok(Self {
                    $($($field: $field.expect(is_there),)*)*
                    $($($made: $made.expect(is_there),)*)?
                })
            }
        }

        impl $crate::config::table::Compared for $name {
            fn differing(&self, other: &Self) -> Vec<&'static str> {
                let mut keys = Vec::new();
                $($(if self.$field != other.$field {
                    keys.push($crate::config::table::key!($field $($key)?));
                })*)*
                keys
            }

            fn take_live(&mut self, new: &Self) {
                $($($crate::config::table::take!(self.$field, new.$field $(, $live)?);)*)*
            }
        }
    };
}

macro_rules! key {
    ($field:ident) => {
        stringify!($field)
    };
    ($field:ident $key:literal) => {
        $key
    };
}

macro_rules! option {
    () => {
        None
    };
    ($value:expr) => {
        Some($value)
    };
}

macro_rules! is_live {
    () => {
        false
    };
    (live) => {
        true
    };
}

macro_rules! take {
    ($to:expr, $from:expr) => {
        let _stays = &$from;
    };
    ($to:expr, $from:expr, live) => {
        $to.clone_from(&$from)
    };
}

pub(super) use {is_live, key, option, settings, take};
