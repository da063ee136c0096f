//! The session and the agent against a scripted monitor.

mod agent;
mod events;
mod handshake;
mod replies;
