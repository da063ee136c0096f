//! The options of a disk in QEMU's words: what its block nodes, its device and its I/O thread say, and the same read back.

use serde_json::{Map, Value, json};

use super::ids::PREFIX;
use super::machine::Family;
use super::object::Object;
use super::{Device, Machine};
use crate::spec::{AioMode, BlockSize, CacheMode, DiscardMode, DiskBus, DiskOptions, ZeroesMode};

/// Before the id of a disk.
const IOTHREAD: &str = "iothread-";

/// Says in the node of a file how it is opened. `on_top`: it is the disk's own image, and not one under it.
pub(super) fn in_file(node: &mut Value, options: &DiskOptions, on_top: bool) {
    cache(node, options);
    if let Some(aio) = options.aio {
        node["aio"] = aio.as_str().into();
    }
    discard(node, options, on_top);
}

/// Says in the node of a format what is done with what the guest writes.
pub(super) fn in_format(node: &mut Value, options: &DiskOptions, on_top: bool) {
    cache(node, options);
    discard(node, options, on_top);
    if let Some(zeroes) = options.zeroes().filter(|_| on_top) {
        node["detect-zeroes"] = zeroes.as_str().into();
    }
}

fn cache(node: &mut Value, options: &DiskOptions) {
    if let Some(cache) = options.cache {
        node["cache"] = json!({ "direct": cache.is_direct(), "no-flush": cache.ignores_flushes() });
    }
}

fn discard(node: &mut Value, options: &DiskOptions, on_top: bool) {
    if let Some(discard) = options.discard.filter(|_| on_top) {
        node["discard"] = discard.as_str().into();
    }
}

/// Says in the device what the guest sees.
pub(super) fn in_device(device: Device, options: &DiskOptions) -> Device {
    let mut device = device;
    if let Some(cache) = options.cache {
        device = device.with("write-cache", if cache.has_write_cache() { "on" } else { "off" });
    }
    if let Some(size) = options.logical_block_size {
        // a physical block is no smaller than a logical one
        device = device.with("logical_block_size", size.bytes()).with("physical_block_size", size.bytes());
    }
    if options.has_iothread() {
        let thread = iothread_id(&device.id);
        // QEMU insists on the eventfd, which is otherwise off without an accelerator (see `accel::device_defaults`)
        device = device.with("iothread", thread).with("ioeventfd", true);
    }
    match options.boot {
        Some(number) => device.with("bootindex", number),
        None => device,
    }
}

/// The id of a disk's own thread.
pub fn iothread_id(disk: &str) -> String {
    format!("{PREFIX}{IOTHREAD}{disk}")
}

/// The disk that a thread is of.
pub fn disk_of_iothread(thread: &str) -> Option<&str> {
    thread.strip_prefix(PREFIX)?.strip_prefix(IOTHREAD)
}

/// The disk's own thread, if it has one.
pub(super) fn iothread(disk: &str, options: &DiskOptions) -> Option<Object> {
    options.has_iothread().then(|| Object::new("iothread", iothread_id(disk)))
}

/// Why a disk on this bus cannot have these options; none if it can.
pub fn refusal(machine: &Machine, bus: DiskBus, options: &DiskOptions) -> Option<String> {
    if options.logical_block_size == Some(BlockSize::B4096) {
        match bus {
            DiskBus::Sata => return Some("QEMU's SATA disks have logical blocks of 512 bytes".to_owned()),
            DiskBus::Usb => return Some("QEMU's USB disks have logical blocks of 512 bytes".to_owned()),
            DiskBus::Virtio | DiskBus::Scsi | DiskBus::Nvme => {}
        }
    }
    // `scsi_bus_legacy_add_drive` of 7.2 leaves `write-cache` out: the disk would be written back in silence
    if bus == DiskBus::Usb && options.cache.is_some_and(|cache| !cache.has_write_cache()) {
        return Some("QEMU's USB disks are always written back: cache=none, writeback or unsafe".to_owned());
    }
    if options.has_iothread() {
        return match bus {
            DiskBus::Virtio if machine.family() == Family::Microvm => {
                Some("the virtio devices of a microvm machine have no I/O threads".to_owned())
            }
            DiskBus::Virtio => None,
            DiskBus::Scsi => Some(
                "an I/O thread would be the SCSI controller's, which all disks on that bus share; bus=virtio has one for each disk"
                    .to_owned(),
            ),
            DiskBus::Sata | DiskBus::Usb | DiskBus::Nvme => {
                Some(format!("QEMU has no I/O threads for {bus} disks; bus=virtio has them"))
            }
        };
    }
    None
}

/// The options of a disk that was plugged by nodes and a device of these descriptions; those that make no sense are left out.
pub(super) fn read(
    file: &Map<String, Value>,
    format: &Map<String, Value>,
    device: &Map<String, Value>,
) -> DiskOptions {
    fn word<T: std::str::FromStr>(map: &Map<String, Value>, name: &str) -> Option<T> {
        map.get(name)?.as_str()?.parse().ok()
    }
    let cache = format.get("cache").map(|cache| (cache["direct"] == true, cache["no-flush"] == true));
    let write_cache = device.get("write-cache").is_none_or(|on| on != "off");
    let is_cache = |mode: &&CacheMode| {
        cache == Some((mode.is_direct(), mode.ignores_flushes())) && mode.has_write_cache() == write_cache
    };
    let number = |name: &str| device.get(name).and_then(Value::as_u64);
    // what is always said, and what is said because of another option, is not an option of its own
    let zeroes: Option<ZeroesMode> = word(format, "detect-zeroes");
    let discard: Option<DiscardMode> = word(format, "discard");
    let discard = discard.filter(|mode| *mode == DiscardMode::Ignore || zeroes.is_some());
    let options = DiskOptions {
        cache: CacheMode::ALL.iter().find(is_cache).copied(),
        aio: word::<AioMode>(file, "aio"),
        discard,
        detect_zeroes: zeroes,
        logical_block_size: number("logical_block_size").and_then(|bytes| bytes.to_string().parse().ok()),
        iothread: device.contains_key("iothread").then_some(true),
        boot: number("bootindex").and_then(|number| u16::try_from(number).ok()),
    };
    if options.check().is_ok() { options } else { DiskOptions::default() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::qemu::plan;
    use crate::qemu::testing::{disk, spec};
    use crate::spec::{Arch, Disk, DiskSpec, VmSpec};

    fn options(text: &str) -> DiskOptions {
        format!("a,{text}").parse::<DiskSpec>().unwrap().options
    }

    #[test]
    fn the_cache_is_what_qemu_makes_of_the_word() {
        // as `bdrv_parse_cache_mode` and `bdrv_qapi_cache` have it: write cache, direct, no flushes
        for (cache, expected) in [
            ("none", ("on", true, false)),
            ("writeback", ("on", false, false)),
            ("writethrough", ("off", false, false)),
            ("directsync", ("off", true, false)),
            ("unsafe", ("on", false, true)),
        ] {
            let options = options(&format!("cache={cache}"));
            let mut node = json!({});
            in_file(&mut node, &options, true);
            let device = in_device(Device::new("virtio-blk-pci", "a"), &options);
            let found = (
                device.properties["write-cache"].as_str().unwrap(),
                node["cache"]["direct"].as_bool().unwrap(),
                node["cache"]["no-flush"].as_bool().unwrap(),
            );
            assert_eq!(found, expected, "{cache}");
        }
    }

    #[test]
    fn what_was_plugged_is_read_back() {
        let machine = Machine::of(&spec());
        for text in [
            "cache=none,aio=native,discard=unmap,detect-zeroes=unmap,logical-block-size=4096,iothread=on,boot=2",
            "cache=directsync,aio=io_uring,discard=ignore,logical-block-size=512",
            "cache=writethrough,detect-zeroes=on,discard=unmap",
            "cache=unsafe,boot=999",
            "aio=threads",
            "iothread=on",
        ] {
            let options = options(text);
            let disk = Disk { options, ..disk("data", DiskBus::Virtio) };
            let steps = [
                plan::open_image("data", &disk.image, false, &options),
                plan::add_disk(&machine, &disk, Some("slot1")),
            ]
            .concat();
            let of = |command: &str, name: &str, value: &str| {
                let fits = |step: &&plan::Step| {
                    step.command.execute == command && step.command.arguments[name] == value
                };
                steps.iter().find(fits).unwrap().command.arguments.clone()
            };
            let found = read(
                &of("blockdev-add", "node-name", "data.file"),
                &of("blockdev-add", "node-name", "data"),
                &of("device_add", "id", "data"),
            );
            assert_eq!(found, options, "{text}");
        }
        let nothing = Map::new();
        assert_eq!(read(&nothing, &nothing, &nothing), DiskOptions::default());
    }

    #[test]
    fn a_thread_is_made_before_its_disk_and_goes_after_it() {
        let disk = Disk { options: options("iothread=on"), ..disk("data", DiskBus::Virtio) };
        let steps = plan::add_disk(&Machine::of(&spec()), &disk, None);
        let names: Vec<_> = steps.iter().map(|step| step.command.execute.as_str()).collect();
        assert_eq!(names, ["object-add", "device_add"]);
        assert_eq!(steps[0].command.arguments["id"], "vmrun-iothread-data");
        assert_eq!(steps[1].command.arguments["iothread"], "vmrun-iothread-data");
        assert_eq!(steps[0].undo.as_ref().unwrap().execute, "object-del");
        assert_eq!(disk_of_iothread("vmrun-iothread-data"), Some("data"));
        assert_eq!(disk_of_iothread("iothread-data"), None);
    }

    #[test]
    fn what_a_bus_cannot_do_is_refused_with_the_reason() {
        let q35 = Machine::of(&spec());
        let microvm = Machine::of(&VmSpec { machine: Some("microvm".to_owned()), ..spec() });
        let s390x = Machine::of(&VmSpec { arch: Arch::S390x, ..spec() });
        for (machine, bus, text, why) in [
            (&q35, DiskBus::Sata, "logical-block-size=4096", "512 bytes"),
            (&q35, DiskBus::Usb, "logical-block-size=4096", "512 bytes"),
            (&q35, DiskBus::Usb, "cache=writethrough", "always written back"),
            (&q35, DiskBus::Sata, "iothread=on", "no I/O threads for sata"),
            (&q35, DiskBus::Usb, "iothread=on", "no I/O threads for usb"),
            (&q35, DiskBus::Nvme, "iothread=on", "no I/O threads for nvme"),
            (&q35, DiskBus::Scsi, "iothread=on", "controller's"),
            (&microvm, DiskBus::Virtio, "iothread=on", "microvm"),
        ] {
            let refusal = refusal(machine, bus, &options(text)).unwrap();
            assert!(refusal.contains(why), "{refusal}");
        }
        for (machine, bus, text) in [
            (&q35, DiskBus::Sata, "logical-block-size=512,iothread=off"),
            (&q35, DiskBus::Scsi, "logical-block-size=4096"),
            (&q35, DiskBus::Nvme, "logical-block-size=4096"),
            (&s390x, DiskBus::Virtio, "iothread=on,logical-block-size=4096"),
        ] {
            assert_eq!(refusal(machine, bus, &options(text)), None, "{text}");
        }
    }
}
