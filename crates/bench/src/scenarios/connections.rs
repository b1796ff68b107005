//! What a connection costs: to log in, and to be there.

use super::{Scenarios, word};
use crate::connections::{self, Login};
use crate::report::Value;
use crate::subject::Kind;

/// Memory of an idle connection with TLS, at most, in bytes.
const IDLE_BYTES: f64 = 10_000.0;

impl Scenarios<'_> {
    pub(super) fn login(&mut self) -> anyhow::Result<()> {
        let (all, verification) = self.logins([Kind::Relay, Kind::Floor])?;
        let [_, (_, floor)] = all;
        for (kind, login) in all {
            let allowed = floor.cpu_us_each + verification + 20.0;
            self.report.row(
                "login",
                &[
                    ("server", word(kind.word())),
                    ("logins", Value::Count(login.logins.into())),
                    ("µs each", Value::Number(login.cpu_us_each, 1)),
                    ("one verification µs", Value::Number(verification, 1)),
                    ("floor + verification + 20 µs", Value::Number(allowed, 1)),
                ],
            )?;
        }
        Ok(())
    }

    pub(super) fn tls_login(&mut self) -> anyhow::Result<()> {
        let (all, verification) = self.logins([Kind::RelayTls, Kind::FloorTls])?;
        let [_, (_, floor)] = all;
        for (kind, login) in all {
            let least = floor.cpu_us_each + verification;
            self.report.row(
                "login with TLS 1.3, whole handshakes",
                &[
                    ("server", word(kind.word())),
                    ("logins", Value::Count(login.logins.into())),
                    ("logins/s", Value::Number(login.per_second, 0)),
                    ("µs each", Value::Number(login.cpu_us_each, 1)),
                    ("one verification µs", Value::Number(verification, 1)),
                    ("× floor + verification", Value::Number(login.cpu_us_each / least, 3)),
                ],
            )?;
        }
        Ok(())
    }

    /// Logins at two servers in turn, and what one verification takes meanwhile.
    pub(super) fn logins(&self, kinds: [Kind; 2]) -> anyhow::Result<([(Kind, Login); 2], f64)> {
        let measure = |kind| connections::logins(&self.servers, kind, self.args.logins);
        let all = self.in_turn(&kinds, measure, |login| login.cpu_us_each)?;
        let all = <[_; 2]>::try_from(all).expect("each is measured");
        Ok((all, connections::verification_us()))
    }

    pub(super) fn idle(&mut self, kind: Kind) -> anyhow::Result<()> {
        let mut counts = vec![2_000.min(self.args.peers()), self.args.peers().min(10_000)];
        counts.dedup();
        let mut most = 0.0_f64;
        for count in counts {
            let idle = connections::idle(&self.servers, kind, count)?;
            most = most.max(idle.bytes_each);
            let table = if kind == Kind::Netbird {
                "NetBird's protocol: idle connections"
            } else {
                "idle connections"
            };
            self.report.row(
                table,
                &[
                    ("server", word(kind.word())),
                    ("connections", Value::Count(idle.connections.into())),
                    ("bytes each", Value::Number(idle.bytes_each, 0)),
                ],
            )?;
        }
        if kind == Kind::RelayTls {
            self.limit("idle connection with TLS, bytes", most, IDLE_BYTES);
        }
        Ok(())
    }
}
