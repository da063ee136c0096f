//! The session and the agent against a scripted monitor.

mod agent;
mod descriptors;
mod events;
mod handshake;
mod replies;
