//! The rehearsal itself: everything holds on the shipped `terraform/`, each planted mistake is named, and bad input and
//! sudden ends leave nothing behind. Needs root, as the rehearsal does.

mod booted;
mod refusals;
mod shipped;
mod stage;
mod sudden_ends;
mod twins;
mod variants;
