//! The code against `proto/io.vmrun.Machine.varlink`, which is the source of truth of the control protocol.
//!
//! A method that is in one of the two and not in the other fails here by name.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::{DeserializeOwned, Visitor};
use serde_json::{Map, Value, json};
use vmrun::control::client::WireError;
use vmrun::control::verbs::{self, Method};
use vmrun::control::{DESCRIPTION, INTERFACE, wire};
use vmrun::vm::{ChangeError, ErrorKind, Outcome};
use zlink_idl::{CustomType, Interface, Type};

use crate::support::boot_sector::Guest;
use crate::support::sandbox::Sandbox;
use crate::support::varlink::Raw;

/// What a type of the code does with a JSON value: parsed and written again, and the names of its fields.
struct Codec {
    round_trip: fn(Value) -> Result<Value, String>,
    fields: fn() -> BTreeSet<&'static str>,
}

impl Codec {
    const fn of<T: Serialize + DeserializeOwned>() -> Self {
        Self {
            round_trip: |value| {
                let parsed: T = serde_json::from_value(value).map_err(|error| error.to_string())?;
                serde_json::to_value(parsed).map_err(|error| error.to_string())
            },
            fields: fields_of::<T>,
        }
    }
}

/// Every method with the types of its parameters and of its reply.
fn methods() -> BTreeMap<&'static str, (Codec, Codec)> {
    #[derive(Default)]
    struct All(BTreeMap<&'static str, (Codec, Codec)>);

    impl verbs::Visitor for All {
        fn visit<M: Method>(&mut self) {
            let before = self.0.insert(M::NAME, (Codec::of::<M>(), Codec::of::<M::Reply>()));
            assert!(before.is_none(), "{} is registered twice", M::NAME);
        }
    }

    let mut all = All::default();
    verbs::visit(&mut all);
    all.0
}

/// The named types of the file.
static TYPES: &[(&str, Codec)] = &[
    ("Outcome", Codec::of::<Outcome>()),
    ("CameTrue", Codec::of::<verbs::CameTrue>()),
    ("Event", Codec::of::<verbs::Event>()),
    ("Forward", Codec::of::<wire::Forward>()),
    ("Usb", Codec::of::<wire::Usb>()),
    ("Disk", Codec::of::<wire::Disk>()),
    ("Device", Codec::of::<wire::Device>()),
    ("Limits", Codec::of::<wire::Limits>()),
    ("Nic", Codec::of::<wire::Nic>()),
    ("Share", Codec::of::<wire::Share>()),
    ("Stats", Codec::of::<wire::Stats>()),
    ("VcpuStats", Codec::of::<wire::VcpuStats>()),
    ("DiskStats", Codec::of::<wire::DiskStats>()),
    ("NicStats", Codec::of::<wire::NicStats>()),
    ("Slot", Codec::of::<wire::Slot>()),
    ("Snapshot", Codec::of::<wire::Snapshot>()),
    ("Status", Codec::of::<wire::Status>()),
];

fn interface() -> Interface<'static> {
    Interface::try_from(DESCRIPTION).expect("the file is Varlink")
}

// ---- what the types of the code are ----

/// The fields of a struct, from what its derived `Deserialize` asks for.
fn fields_of<T: DeserializeOwned>() -> BTreeSet<&'static str> {
    struct Spy<'a>(&'a mut &'static [&'static str]);

    impl<'de> serde::Deserializer<'de> for Spy<'_> {
        type Error = serde::de::value::Error;

        fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Self::Error> {
            Err(serde::de::Error::custom("not a struct"))
        }

        fn deserialize_struct<V: Visitor<'de>>(
            self,
            _: &'static str,
            fields: &'static [&'static str],
            _: V,
        ) -> Result<V::Value, Self::Error> {
            *self.0 = fields;
            Err(serde::de::Error::custom("seen"))
        }

        serde::forward_to_deserialize_any! {
            bool i8 i16 i32 i64 u8 u16 u32 u64 f32 f64 char str string bytes byte_buf option unit unit_struct
            newtype_struct seq tuple tuple_struct map enum identifier ignored_any
        }
    }

    let mut fields: &'static [&'static str] = &[];
    let _ = T::deserialize(Spy(&mut fields));
    fields.iter().copied().collect()
}

// ---- what the file says ----

/// A value of a type, every optional part present. `pick` chooses the variant of enums.
fn sample(ty: &Type<'_>, interface: &Interface<'_>, pick: usize) -> Value {
    match ty {
        Type::Bool => json!(true),
        Type::Int => json!(7),
        Type::Float => json!(1.5),
        Type::String => json!("text"),
        Type::ForeignObject | Type::Any => json!({ "any": ["thing"] }),
        Type::Optional(inner) => sample(inner, interface, pick),
        Type::Array(inner) => json!([sample(inner, interface, pick)]),
        Type::Map(inner) => json!({ "key": sample(inner, interface, pick) }),
        Type::Enum(variants) => json!(variants.iter().nth(pick % variants.len()).unwrap().name().to_string()),
        Type::Object(fields) => {
            object(fields.iter().map(|f| (f.name().to_string(), sample(f.ty(), interface, pick))))
        }
        Type::Custom(name) => {
            let wanted = name.to_string();
            let custom = interface.custom_types().find(|custom| custom.name().to_string() == wanted);
            match custom.unwrap_or_else(|| panic!("type {wanted} is not in the file")) {
                CustomType::Object(custom) => {
                    object(custom.fields().map(|f| (f.name().to_string(), sample(f.ty(), interface, pick))))
                }
                CustomType::Enum(custom) => {
                    let variants: Vec<String> = custom.variants().map(|v| v.name().to_string()).collect();
                    json!(variants[pick % variants.len()])
                }
            }
        }
    }
}

fn object(fields: impl Iterator<Item = (String, Value)>) -> Value {
    Value::Object(fields.collect::<Map<_, _>>())
}

/// Holds one struct of the code against its fields in the file: same names, same types, optional alike.
fn hold(what: &str, codec: &Codec, fields: &[(String, Type<'_>)], interface: &Interface<'_>) {
    let wanted: BTreeSet<&str> = fields.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!((codec.fields)(), wanted, "{what}: the code's fields (left) are not the file's (right)");
    // enough to see every variant of the longest enum
    for pick in 0..16 {
        let whole = object(fields.iter().map(|(name, ty)| (name.clone(), sample(ty, interface, pick))));
        assert_eq!((codec.round_trip)(whole.clone()), Ok(whole.clone()), "{what}");
        for (name, ty) in fields {
            let mut less = whole.clone();
            less.as_object_mut().unwrap().remove(name);
            match ty.as_optional() {
                Some(_) => {
                    assert_eq!(
                        (codec.round_trip)(less.clone()),
                        Ok(less.clone()),
                        "{what}: {name} is optional"
                    );
                    less[name] = Value::Null;
                    assert!((codec.round_trip)(less).is_ok(), "{what}: {name} may be null");
                }
                None => assert!((codec.round_trip)(less).is_err(), "{what}: {name} is not optional"),
            }
        }
    }
}

#[test]
fn parameters_and_replies_are_the_files() {
    let interface = interface();
    let mut methods = methods();
    for method in interface.methods() {
        let name = method.name().to_string();
        let (parameters, reply) =
            &methods.remove(name.as_str()).unwrap_or_else(|| panic!("control/verbs does not serve {name}"));
        let inputs: Vec<_> = method.inputs().map(|f| (f.name().to_string(), f.ty().clone())).collect();
        hold(&format!("parameters of {name}"), parameters, &inputs, &interface);
        let outputs: Vec<_> = method.outputs().map(|f| (f.name().to_string(), f.ty().clone())).collect();
        hold(&format!("reply of {name}"), reply, &outputs, &interface);
    }
    assert!(methods.is_empty(), "the file does not have {:?}", methods.keys());
}

#[test]
fn named_types_are_the_files() {
    let interface = interface();
    for custom in interface.custom_types() {
        let CustomType::Object(custom) = custom else { continue };
        let name = custom.name().to_string();
        let codec = TYPES.iter().find(|(known, _)| *known == name).map(|(_, codec)| codec);
        let codec = codec.unwrap_or_else(|| panic!("type {name} of the file has no row in TYPES"));
        let fields: Vec<_> = custom.fields().map(|f| (f.name().to_string(), f.ty().clone())).collect();
        hold(&name, codec, &fields, &interface);
    }
}

#[test]
fn every_kind_of_failure_is_an_error_of_the_file() {
    let text = || "x".to_owned();
    let kinds = [
        ErrorKind::NotRunning,
        ErrorKind::InvalidArgument { parameter: Some(text()) },
        ErrorKind::NoSuchThing { id: text() },
        ErrorKind::AlreadyThere { id: text() },
        ErrorKind::NoFreeSlot,
        ErrorKind::NotNow { state: text() },
        ErrorKind::NotSupported,
        ErrorKind::RefusedByQemu { class: text() },
        ErrorKind::RefusedByGuest { id: text() },
        ErrorKind::GuestPanicked,
        ErrorKind::NoGuestAgent,
        ErrorKind::TimedOut,
        ErrorKind::HostProblem,
    ];
    let outcome: Outcome =
        serde_json::from_value(json!({ "ending": "quit", "exit_code": 12, "message": "x" })).unwrap();
    let interface = interface();
    let mut files: BTreeMap<String, BTreeSet<String>> = interface
        .errors()
        .map(|e| (format!("{INTERFACE}.{}", e.name()), e.fields().map(|f| f.name().to_string()).collect()))
        .collect();
    for kind in kinds {
        let error = WireError::from(ChangeError::new(kind, "why").hint("what to do"));
        let error = error.with_outcome(Some(outcome.clone()));
        let fields: BTreeSet<String> = error.parameters.keys().cloned().collect();
        assert_eq!(files.remove(&error.error), Some(fields), "{}", error.error);
    }
    assert!(files.is_empty(), "no failure of the code becomes {files:?}");
}

#[test]
fn every_method_is_served_and_names_a_wrong_parameter() {
    let sandbox = Sandbox::new();
    let image = sandbox.boot_sector(Guest::Halted);
    let name = sandbox.detached([&image]);
    let mut raw = Raw::connect(&sandbox.runtime().join(&name).join("control"));
    let described =
        raw.call("org.varlink.service.GetInterfaceDescription", json!({ "interface": INTERFACE }));
    assert_eq!(described["parameters"]["description"], DESCRIPTION);
    let interface = interface();
    for method in interface.methods() {
        let full = format!("{INTERFACE}.{}", method.name());
        let mut parameters =
            object(method.inputs().map(|f| (f.name().to_string(), sample(f.ty(), &interface, 0))));
        parameters["no_such_parameter"] = json!(1);
        let answer = raw.call(&full, parameters);
        assert_eq!(answer["error"], "org.varlink.service.InvalidParameter", "{full}: {answer}");
        assert_eq!(answer["parameters"]["parameter"], "no_such_parameter", "{full}: {answer}");
        let required = method.inputs().find(|f| f.ty().as_optional().is_none());
        if let Some(required) = required {
            let answer = raw.call(&full, json!({}));
            assert_eq!(answer["parameters"]["parameter"], required.name().to_string(), "{full}: {answer}");
        }
    }
}

// ---- recorded frames ----

fn examples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("proto/examples")
}

/// `proto/examples/METHOD.jsonl`: call, reply, call, reply… as they once travelled. Files are added to, never changed.
#[test]
fn recorded_frames_still_parse() {
    let methods = methods();
    for method in interface().methods() {
        let name = method.name().to_string();
        let path = examples().join(format!("{name}.jsonl"));
        let text = std::fs::read_to_string(&path)
            .unwrap_or_else(|_| panic!("{name} has no example: see record_examples"));
        let frames: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let (parameters, reply) = &methods[name.as_str()];
        assert!(frames.len() >= 2 && frames.len().is_multiple_of(2), "{}", path.display());
        for pair in frames.chunks(2) {
            assert_eq!(pair[0]["method"], format!("{INTERFACE}.{name}"));
            (parameters.round_trip)(pair[0]["parameters"].clone())
                .unwrap_or_else(|why| panic!("{}: {why}", pair[0]));
            if pair[1].get("error").is_some() {
                let error: WireError = serde_json::from_value(pair[1].clone()).unwrap();
                assert!(error.text("message").is_some(), "{}", pair[1]);
            } else {
                (reply.round_trip)(pair[1]["parameters"].clone())
                    .unwrap_or_else(|why| panic!("{}: {why}", pair[1]));
            }
        }
    }
}

/// Records what is missing: `cargo test --test it -- --ignored record_examples`.
#[test]
#[ignore = "writes proto/examples"]
fn record_examples() {
    let sandbox = Sandbox::new();
    let image = sandbox.boot_sector(Guest::Halted);
    let iso = sandbox.file("medium.iso");
    std::fs::write(&iso, vec![0; 1 << 20]).unwrap();
    let vm = sandbox.detached([
        "--name".as_ref(),
        "example".as_ref(),
        "--data".as_ref(),
        "hello".as_ref(),
        image.as_os_str(),
    ]);
    let mut raw = Raw::connect(&sandbox.runtime().join(&vm).join("control"));
    let data = sandbox.file("data.img");
    let calls = [
        ("AddUsb", json!({ "selector": "usb-kbd", "id": "keys" })),
        ("AddUsb", json!({ "selector": "usb-kbd", "id": "keys" })),
        ("ListUsb", json!({})),
        ("AddForward", json!({ "host_port": 0, "guest_port": 80 })),
        ("ListForwards", json!({})),
        ("RemoveForward", json!({ "host_port": 1 })),
        (
            "AddDisk",
            json!({ "file": data, "size_bytes": 1 << 20, "bus": "scsi", "id": "data", "serial": "S1" }),
        ),
        ("ResizeDisk", json!({ "id": "data", "size_bytes": 2 << 20 })),
        ("ThrottleDisk", json!({ "id": "data", "iops": 100, "bytes_per_s_read": 1 << 20 })),
        ("ListDisks", json!({})),
        ("AddNic", json!({ "network": "user", "mac": "52:54:00:00:00:01", "id": "lan" })),
        ("AddNic", json!({ "network": "user", "mac": "52:54:00:00:00:01" })),
        ("SetLink", json!({ "up": false, "nic": "lan" })),
        ("SetLink", json!({ "up": true })),
        ("ListNics", json!({})),
        ("RemoveNic", json!({ "id": "lan", "timeout_ms": 100 })),
        ("GetStats", json!({})),
        (
            "AddDevice",
            json!({ "driver": "virtio-rng-pci", "id": "rng", "properties": { "max-bytes": "1024" } }),
        ),
        ("ChangeMedia", json!({ "id": "metadata", "file": iso })),
        ("GetStatus", json!({})),
        ("EjectMedia", json!({ "id": "metadata", "force": true })),
        ("RemoveUsb", json!({ "id": "keys" })),
        ("RemoveDisk", json!({ "id": "data", "timeout_ms": 30_000 })),
        ("RemoveDevice", json!({ "id": "rng", "timeout_ms": 100 })),
        ("Pause", json!({})),
        ("Resume", json!({})),
        ("Reset", json!({})),
        ("Powerdown", json!({})),
        ("Qmp", json!({ "command": { "execute": "query-status" } })),
        ("Hmp", json!({ "line": "info status" })),
        ("Wait", json!({ "conditions": ["running"], "timeout_ms": 1000 })),
        ("WriteConsole", json!({ "data": "Cg==" })),
        ("Shutdown", json!({ "timeout_ms": 1000, "force": true })),
    ];
    let place = sandbox.path().to_string_lossy().into_owned();
    let mut files: BTreeMap<&str, String> = BTreeMap::new();
    for (name, parameters) in calls {
        let method = format!("{INTERFACE}.{name}");
        let reply = raw.call(&method, parameters.clone());
        for frame in [json!({ "method": method, "parameters": parameters }), reply] {
            let line = frame.to_string().replace(&place, "/tmp/example");
            files.entry(name).or_default().push_str(&format!("{line}\n"));
        }
    }
    for (name, text) in files {
        let path = examples().join(format!("{name}.jsonl"));
        if !path.exists() {
            std::fs::write(path, text).unwrap();
        }
    }
}
