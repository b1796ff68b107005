//! The page of the configuration file, beacon-relay.toml(5), made from the flags of `serve`.

use std::fmt::Write as _;

use clap::{Args as _, Command};

use super::roff::plain;
use crate::config::{Flags, live_settings};

/// What stands before the settings.
const HEAD: &str = "beacon\\-relay.toml \\- the settings of beacon\\-relay
.SH DESCRIPTION
A TOML file, which
.B \\-\\-config
or the variable
.B BEACON_RELAY_CONFIG
names. Each key is a flag of
.B beacon\\-relay serve
with underscores for dashes, and a variable in capitals with
.B BEACON_RELAY_
in front. Flags win over variables, and those over the file.
.PP
Times are written as 500ms, 10s, 1m30s, 2h or 7d; sizes in bytes may have a unit, such as 256KiB.
A relative path is relative to the folder of the file. Unknown keys are mistakes;
.B beacon\\-relay check\\-config
tells all mistakes at once.
.PP
More listeners are tables: a
.B [[listener]]
has
.BR bind ,
.B doors
and more, which docs/CONFIGURE.md describes, as docs/KEYOP.md does
.B [[keyop.peer]]
and
.BR [[keyop.hub]] .
.SH EXAMPLE
.nf
relay_name = \"relay.example.org\"
acme = [\"relay.example.org\"]
keys = \"keys.json\"
outbox_bytes = \"512KiB\"
.fi
";

/// The page.
pub(super) fn page() -> String {
    let version = env!("CARGO_PKG_VERSION");
    let mut out = format!(
        ".TH beacon\\-relay.toml 5 \"\" \"beacon\\-relay {version}\"\n.SH NAME\n{HEAD}.SH SETTINGS\n\
         Those marked with * take effect by a reload; the others once the relay is started again.\n"
    );
    let command = Flags::augment_args(Command::new("serve"));
    let mut heading = "";
    for flag in command.get_arguments().filter(|flag| flag.get_id() != "config") {
        let key = flag.get_id().as_str();
        if let Some(of) = flag.get_help_heading().filter(|of| *of != heading) {
            heading = of;
            // Writing to a string does not fail.
            let _ = writeln!(out, ".SS {}", plain(of));
        }
        let is_live = live_settings().any(|live| live == key);
        let names = flag.get_value_names().unwrap_or_default();
        let value = names.first().map(ToString::to_string).unwrap_or_default();
        let help = flag.get_help().map(ToString::to_string).unwrap_or_default();
        let mark = if is_live { " *" } else { "" };
        let _ = write!(
            out,
            ".TP\n\\fB{}\\fR = \\fI{}\\fR{mark}\n{}\n",
            plain(key),
            plain(&value),
            plain(&help)
        );
    }
    out.push_str(".SH \"SEE ALSO\"\n.BR beacon\\-relay (1),\n.BR beacon\\-relay\\-serve (1)\n");
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn page_of_the_file_has_each_setting_with_its_help_and_default() {
        let page = page();
        let idle = "\\fBidle_timeout\\fR = \\fITIME\\fR *\nEnd a session after this time without any \
                    frame [default: 90s]\n";
        assert!(page.contains(idle), "{page}");
        assert!(page.contains("\\fBudp_bind\\fR = \\fIIP:PORT\\fR\n"), "{page}");
        assert!(page.matches(".TP\n").count() > 100, "{page}");
    }
}
