//! Man pages and shell completions, made from the declaration of the arguments.

mod completions;
mod examples;
mod pages;
mod roff;
mod settings;

pub(super) use completions::Completions;
pub(super) use pages::Man;
