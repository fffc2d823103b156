//! Behaviour, seen from outside: every test has a stage of its own, put up by the real command.

mod crash;
mod deployment;
mod flows;
mod hostile;
mod names;
mod privacy;
mod races;
mod site;
mod wire;
mod world;
