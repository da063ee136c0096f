//! The boot sectors that other tests start: what can be said of them without starting them.

use crate::support::asm::Asm;
use crate::support::boot_sector::{DISK_SIZE, Guest, boot_sector, says, write};

const ALL: [Guest; 14] = [
    Guest::PowersOff,
    Guest::ReactsToButton,
    Guest::ReactsLate { seconds: 3599 },
    Guest::SecondPress,
    Guest::IgnoresButton,
    Guest::Halted,
    Guest::Panics,
    Guest::PanicsOnButton,
    Guest::ResetsForEver,
    Guest::Resets { times: 2 },
    Guest::FloodsConsole,
    Guest::EchoesConsole,
    Guest::WritesDisk,
    Guest::Counts,
];

fn contains(image: &[u8], text: &str) -> bool {
    image.windows(text.len()).any(|window| window == text.as_bytes())
}

#[test]
fn every_guest_is_one_bootable_sector_with_its_own_greeting() {
    for guest in ALL {
        let image = boot_sector(guest);
        assert_eq!(image.len(), 512, "{guest:?}");
        assert_eq!(image[510..], [0x55, 0xaa], "{guest:?}");
        assert!(contains(&image, &format!("{}\r\n\0", guest.greeting())), "{guest:?}");
        assert_eq!(ALL.iter().filter(|other| other.greeting() == guest.greeting()).count(), 1, "{guest:?}");
    }
}

#[test]
fn only_the_guests_that_say_something_carry_it() {
    for guest in ALL {
        let panics = matches!(guest, Guest::Panics | Guest::PanicsOnButton);
        assert_eq!(contains(&boot_sector(guest), says::PANIC), panics, "{guest:?}");
        assert_eq!(contains(&boot_sector(guest), says::ERROR), guest == Guest::WritesDisk, "{guest:?}");
    }
}

#[test]
fn the_disk_is_written_where_it_was_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("guest, with a comma.img");
    write(Guest::Halted, &path);
    let disk = std::fs::read(path).unwrap();
    assert_eq!(disk.len() as u64, DISK_SIZE);
    assert_eq!(disk[..512], boot_sector(Guest::Halted));
}

#[test]
fn jumps_count_from_the_end_of_the_instruction() {
    let mut asm = Asm::new(0x7c00);
    asm.label("start").hlt().jmp("start").jz("end").mov_si_text("A").label("end");
    let expected = [
        0xf4, // 7c00 hlt
        0xe9, 0xfc, 0xff, // 7c01 jmp 7c00
        0x0f, 0x84, 0x03, 0x00, // 7c04 jz 7c0b
        0xbe, 0x0b, 0x7c, // 7c08 mov si, 7c0b
        b'A', 0, // 7c0b
    ];
    assert_eq!(asm.assemble(), expected);
}

#[test]
#[should_panic(expected = "label `nowhere` is missing")]
fn a_jump_to_nowhere_is_found_out() {
    let mut asm = Asm::new(0);
    asm.jmp("nowhere");
    asm.assemble();
}
