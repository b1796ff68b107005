//! Tells the program what it is built from, as the environment says: BUILD_COMMIT, and
//! SOURCE_DATE_EPOCH for the commit's date. `make` sets both. Git is not asked, or each commit would
//! have everything compiled anew.

use std::env;

const UNKNOWN: &str = "unknown";

fn main() {
    let is_word = |text: &String| {
        !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || "-._".contains(c))
    };
    let said = |name| {
        println!("cargo::rerun-if-env-changed={name}");
        env::var(name).ok().filter(is_word)
    };
    let commit = said("BUILD_COMMIT").unwrap_or_else(|| UNKNOWN.to_owned());
    let seconds = said("SOURCE_DATE_EPOCH").and_then(|text| text.parse::<u64>().ok());
    let date = seconds.map_or_else(|| UNKNOWN.to_owned(), |seconds| date(seconds / 86_400));
    let target = env::var("TARGET").expect("cargo sets it");
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rustc-env=BUILT_COMMIT={commit}");
    println!("cargo::rustc-env=BUILT_DATE={date}");
    println!("cargo::rustc-env=BUILT_TARGET={target}");
}

/// The date so many days after 1970-01-01 (Howard Hinnant's `civil_from_days`, from 1970 on).
fn date(days: u64) -> String {
    // Days since 0000-03-01, so that the leap day is the last of its year.
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}")
}
