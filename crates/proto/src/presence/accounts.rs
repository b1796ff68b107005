//! What presence counts, and why it did not follow an input.

/// Why an input was not followed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Denied {
    /// A frame came from a relay that is no member.
    Stranger,
    /// An epoch is too far ahead of the clock.
    EpochAhead,
    /// A claim is no reason to take the peer away from its owner.
    Held,
    /// A claim that proves nothing came too soon after something else.
    TooSoon,
    /// There is no room for another entry, or another statement.
    Full,
    /// There are too many look-ups in flight.
    LookupsFull,
    /// A relay takes over more sessions, or more of what proved nothing, than one may.
    TakeoverLimited,
    /// A relay told where a peer is that is no home of it, or was not asked.
    NoSay,
    /// There is no room for another watch.
    WatchesFull,
}

impl Denied {
    /// All of them, in the order of [`Stats::denied`].
    pub const ALL: [Self; 9] = [
        Self::Stranger,
        Self::EpochAhead,
        Self::Held,
        Self::TooSoon,
        Self::Full,
        Self::LookupsFull,
        Self::TakeoverLimited,
        Self::NoSay,
        Self::WatchesFull,
    ];

    /// The word for the metric's `reason` label.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Stranger => "lost_member",
            Self::EpochAhead => "epoch_ahead",
            Self::Held => "held",
            Self::TooSoon => "too_soon",
            Self::Full => "full",
            Self::LookupsFull => "lookups_full",
            Self::TakeoverLimited => "takeover_limited",
            Self::NoSay => "no_say",
            Self::WatchesFull => "watches_full",
        }
    }
}

/// How much there is of what.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Stats {
    /// Peers of the cluster that this relay is the home of.
    pub entries: usize,
    /// Peers that it was the home of a moment ago.
    pub tombstones: usize,
    /// Peers that this relay has.
    pub locals: usize,
    /// Statements that wait for an answer.
    pub outstanding: usize,
    /// Look-ups in flight.
    pub lookups: usize,
    /// Peers that this relay watches.
    pub watched: usize,
    /// Watches of relays, this one included, at this one as a home.
    pub watchers: usize,
    /// Sessions that a relay took over from another one since the start, as far as this relay
    /// had a say in it.
    pub takeovers: u64,
    /// The same of peers that had proved nothing there: endpoints, and peers behind foreign
    /// servers.
    pub unproved_takeovers: u64,
    /// Inputs that were not followed since the start, as [`Denied::ALL`].
    pub denied: [u64; Denied::ALL.len()],
}
