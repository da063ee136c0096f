//! A status that is asked for again, while nothing has happened and after something has.

use serde_json::{Value, json};
use vmrun::control::INTERFACE;

use crate::support::boot_sector::Guest;
use crate::support::sandbox::Sandbox;
use crate::support::varlink::Raw;

/// The uptime, and everything else.
fn status(client: &mut Raw) -> (u64, Value) {
    let mut answer = client.call(&format!("{INTERFACE}.GetStatus"), json!({}));
    let status = &mut answer["parameters"]["status"];
    let uptime = status["uptime_ms"].take().as_u64().unwrap();
    (uptime, status.take())
}

#[test]
fn nothing_but_the_uptime_changes_until_something_happens() {
    let sandbox = Sandbox::new();
    // a text that must not be taken for the uptime
    let image = sandbox.file(r#"a "uptime_ms":7.img"#);
    std::fs::rename(sandbox.boot_sector(Guest::Halted), &image).unwrap();
    let name = sandbox.detached([&image]);
    let socket = sandbox.runtime().join(&name).join("control");
    let (mut one, mut other) = (Raw::connect(&socket), Raw::connect(&socket));
    let (begin, first) = status(&mut one);
    assert_eq!(first["disks"][0]["file"], image.to_str().unwrap());
    let mut uptime = begin;
    while uptime == begin {
        let (later, again) = status(&mut one);
        assert!(later >= uptime, "{later} after {uptime}");
        assert_eq!(again, first);
        uptime = later;
    }
    assert_eq!(status(&mut other).1, first);

    let call = |client: &mut Raw, method: &str, parameters: Value| {
        let answer = client.call(&format!("{INTERFACE}.{method}"), parameters);
        assert!(answer.get("error").is_none(), "{answer}");
    };
    // a client whose change was answered sees it in the status, even if it got an older status before
    for _ in 0..3 {
        call(&mut other, "AddForward", json!({ "host_port": 0, "guest_port": 80 }));
        let (_, changed) = status(&mut one);
        assert_eq!(changed["forwards"].as_array().unwrap().len(), 1, "{changed}");
        let port = changed["forwards"][0]["host_port"].clone();
        call(&mut one, "RemoveForward", json!({ "host_port": port }));
        assert_eq!(status(&mut other).1, first);
        call(&mut other, "Pause", json!({}));
        assert_eq!(status(&mut one).1["state"], "paused");
        call(&mut one, "Resume", json!({}));
        assert_eq!(status(&mut one).1, first);
    }
}
