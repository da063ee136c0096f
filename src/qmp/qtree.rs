//! The device tree that the human monitor prints (`info qtree`): every device, also those without an id, with the bus that it
//! sits on. QMP has no such answer: it would take a question for each property of each device. Format as of QEMU 7.2 to 11.1,
//! softmmu/qdev-monitor.c.

use std::collections::BTreeMap;

/// A device of the tree.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Dev {
    /// QEMU's name of the model.
    pub driver: String,
    /// Its id; empty if it has none.
    pub id: String,
    /// Its properties as they are printed, without quotes.
    pub properties: BTreeMap<String, String>,
    /// Its other attributes, e.g. `addr 0.0, port 2, speed 480, name QEMU USB Tablet, attached`.
    pub notes: Vec<String>,
    /// Index of the bus that it sits on.
    pub bus: usize,
}

/// A bus of the tree.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Bus {
    /// Its name.
    pub name: String,
    /// QEMU's type of it, e.g. `PCI`, `PCIE`, `usb-bus`, `SCSI`.
    pub kind: String,
    /// Index of the device that it belongs to; none for a bus of the machine.
    pub parent: Option<usize>,
}

/// The whole tree, in the order in which it is printed: parents before children.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Tree {
    /// All devices.
    pub devices: Vec<Dev>,
    /// All buses.
    pub buses: Vec<Bus>,
}

/// What a line of less indentation goes on with.
#[derive(Clone, Copy)]
enum Open {
    Bus(usize),
    Dev(usize),
}

impl Tree {
    /// Reads the text; lines that make no sense are left out.
    pub fn parse(text: &str) -> Self {
        let mut tree = Self::default();
        let mut open: Vec<(usize, Open)> = Vec::new();
        for line in text.lines() {
            let words = line.trim();
            let depth = line.len() - line.trim_start().len();
            // the attributes of a bus or device are one step deeper, as are its children
            while open.last().is_some_and(|(other, _)| *other >= depth) {
                open.pop();
            }
            let parent = open.last().map(|(_, what)| *what);
            if let Some(name) = words.strip_prefix("bus: ") {
                let parent = match parent {
                    Some(Open::Dev(dev)) => Some(dev),
                    _ => None,
                };
                open.push((depth, Open::Bus(tree.buses.len())));
                tree.buses.push(Bus { name: name.to_owned(), kind: String::new(), parent });
            } else if let (Some(rest), Some(Open::Bus(bus))) = (words.strip_prefix("dev: "), parent) {
                let (driver, id) = rest.split_once(", id ").unwrap_or((rest, ""));
                open.push((depth, Open::Dev(tree.devices.len())));
                let id = id.trim_matches('"').to_owned();
                tree.devices.push(Dev { driver: driver.to_owned(), id, bus, ..Dev::default() });
            } else {
                tree.detail(parent, words);
            }
        }
        tree
    }

    fn detail(&mut self, of: Option<Open>, words: &str) {
        match of {
            Some(Open::Bus(bus)) => {
                if let (Some(kind), Some(bus)) = (words.strip_prefix("type "), self.buses.get_mut(bus)) {
                    kind.clone_into(&mut bus.kind);
                }
            }
            Some(Open::Dev(dev)) => {
                let Some(dev) = self.devices.get_mut(dev) else { return };
                match words.split_once(" = ") {
                    Some((name, value)) => {
                        dev.properties.insert(name.to_owned(), value.trim_matches('"').to_owned());
                    }
                    None => dev.notes.push(words.to_owned()),
                }
            }
            None => {}
        }
    }

    /// The device that a device hangs on; none for one of the machine's own buses.
    pub fn parent(&self, dev: usize) -> Option<usize> {
        self.bus_of(dev)?.parent
    }

    /// The bus that a device sits on.
    pub fn bus_of(&self, dev: usize) -> Option<&Bus> {
        self.buses.get(self.devices.get(dev)?.bus)
    }

    /// What sits on a bus.
    pub fn on(&self, bus: usize) -> impl Iterator<Item = &Dev> {
        self.devices.iter().filter(move |dev| dev.bus == bus)
    }

    /// Whether a name leads to this bus and no other.
    pub fn is_unique(&self, name: &str) -> bool {
        self.buses.iter().filter(|bus| bus.name == name).count() == 1
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// From QEMU 7.2.22, shortened.
    const TEXT: &str = r#"bus: main-system-bus
  type System
  dev: q35-pcihost, id ""
    short_root_bus = 0 (0x0)
    bus: pcie.0
      type PCIE
      dev: virtio-blk-pci, id ""
        addr = 06.0
        class SCSI controller, addr 00:06.0, pci id 1af4:1001 (sub 1af4:0002)
        bus: virtio-bus
          type virtio-pci-bus
          dev: virtio-blk-device, id ""
            drive = "virtio0"
      dev: pcie-root-port, id "rp1"
        bus: rp1
          type PCIE
      dev: ich9-usb-ehci1, id ""
        bus: usb-bus.0
          type usb-bus
          dev: usb-tablet, id "tab"
            port = ""
            addr 0.0, port 2, speed 480, name QEMU USB Tablet, attached
  dev: fw_cfg_io, id ""
"#;

    #[test]
    fn reads_a_tree() {
        let tree = Tree::parse(&TEXT.replace('\n', "\r\n"));
        let names: Vec<&str> = tree.devices.iter().map(|dev| dev.driver.as_str()).collect();
        assert_eq!(
            names,
            [
                "q35-pcihost",
                "virtio-blk-pci",
                "virtio-blk-device",
                "pcie-root-port",
                "ich9-usb-ehci1",
                "usb-tablet",
                "fw_cfg_io"
            ]
        );
        assert_eq!(tree.devices[2].properties["drive"], "virtio0");
        assert_eq!(tree.parent(2), Some(1));
        assert_eq!(tree.bus_of(1).unwrap().name, "pcie.0");
        assert_eq!(tree.devices[3].id, "rp1");
        assert_eq!(tree.bus_of(5).unwrap().kind, "usb-bus");
        assert_eq!(tree.devices[5].notes, ["addr 0.0, port 2, speed 480, name QEMU USB Tablet, attached"]);
        assert_eq!(tree.parent(6), None);
        assert!(tree.is_unique("rp1") && !tree.is_unique("nothing"));
    }

    proptest! {
        #[test]
        fn no_text_panics(text: String, lines in prop::collection::vec(" {0,6}(bus: |dev: |type |)[a-z0-9,\" =]{0,12}", 0..20)) {
            let _ = (Tree::parse(&text), Tree::parse(&lines.join("\n")));
        }
    }
}
