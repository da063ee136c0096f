//! Guests of one disk sector, for tests that need a VM with a certain behaviour but no operating system.
//!
//! They want an x86 machine with SeaBIOS (`q35` or `pc`), a serial port at 0x3f8 and a boot disk of any kind:
//! `-drive if=none,id=boot,format=raw,file=… -device virtio-blk-pci,drive=boot,bootindex=0`. All wait with `hlt` where
//! they have nothing to do, so a VM that waits costs almost no processor time even without KVM.
//!
//! The first line that a guest prints is its [`Guest::greeting`]. It comes after the guest has switched the power
//! button on, so a `system_powerdown` that follows the greeting is not lost (one before it is).

use std::fs::OpenOptions;
use std::path::Path;

use super::asm::Asm;

/// Physical address of the 32-bit little-endian counter of the guests that count: `xp /1wx 0x7000`.
pub(crate) const COUNTER: u16 = 0x7000;

/// [`Guest::WritesDisk`] prints a line for every so many sectors; a power of two.
pub(crate) const SECTORS_PER_REPORT: u16 = 64;

/// What the guests say, each on a line of its own.
pub(crate) mod says {
    /// The power button was seen.
    pub(crate) const BUTTON: &str = "guest: button";
    /// Its last output before the power goes off.
    pub(crate) const OFF: &str = "guest: off";
    /// Its last output before the panic device is used.
    pub(crate) const PANIC: &str = "guest: panic";
    /// The BIOS could not write to the disk, or there is none.
    pub(crate) const ERROR: &str = "guest: error";
}

/// What a guest does once it has printed its greeting. "The button" is ACPI's power button, QMP's `system_powerdown`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Guest {
    /// Switches itself off at once.
    PowersOff,
    /// Switches itself off at the button.
    ReactsToButton,
    /// Says `button` at once, and switches itself off this much (guest) time later; later presses change nothing.
    ReactsLate { seconds: u16 },
    /// Says `button` at every press, and switches itself off at the second.
    SecondPress,
    /// Idles with interrupts on; never looks at the button.
    IgnoresButton,
    /// Halts with interrupts off: nothing but a reset wakes it.
    Halted,
    /// Panics at once; needs `-device pvpanic`.
    Panics,
    /// Panics at the button; needs `-device pvpanic`.
    PanicsOnButton,
    /// Resets the machine at every start, six times a second. SeaBIOS answers every warm reset with one of its own
    /// before it boots, so QEMU sends two RESET events for each.
    ResetsForEver,
    /// Resets the machine so many times, then is like [`Guest::ReactsToButton`]; greets at every start.
    /// A new QEMU starts the count anew.
    Resets { times: u8 },
    /// Prints `line 00000001`, `line 00000002`, … as fast as the console takes them, and counts the lines in [`COUNTER`]. Checks
    /// the button between lines, so not while the console is not read.
    FloodsConsole,
    /// Sends back every byte that comes in, `a`–`z` as capitals and the rest as it is; switches itself off at the
    /// button.
    EchoesConsole,
    /// Writes the second disk (BIOS drive 0x81) sector by sector, from the start again when it is full. The n-th
    /// sector written (from 1) is filled with n as 32-bit little-endian numbers. Says `wrote 00000064` after every
    /// [`SECTORS_PER_REPORT`] and `guest: error` when the BIOS reports an error, upon which it tries the same sector
    /// again in a moment. The number of sectors written is in [`COUNTER`]. Switches itself off at the button.
    WritesDisk,
    /// Counts in [`COUNTER`] as fast as it can: busy. Switches itself off at the button.
    Counts,
}

impl Guest {
    /// The first line on the serial console, without its `\r\n`.
    pub(crate) fn greeting(self) -> &'static str {
        match self {
            Self::PowersOff => "guest: powers-off ready",
            Self::ReactsToButton => "guest: reacts-to-button ready",
            Self::ReactsLate { .. } => "guest: reacts-late ready",
            Self::SecondPress => "guest: second-press ready",
            Self::IgnoresButton => "guest: ignores-button ready",
            Self::Halted => "guest: halted ready",
            Self::Panics => "guest: panics ready",
            Self::PanicsOnButton => "guest: panics-on-button ready",
            Self::ResetsForEver => "guest: resets-for-ever boot",
            Self::Resets { .. } => "guest: resets boot",
            Self::FloodsConsole => "guest: floods-console ready",
            Self::EchoesConsole => "guest: echoes-console ready",
            Self::WritesDisk => "guest: writes-disk ready",
            Self::Counts => "guest: counts ready",
        }
    }
}

/// Writes the guest's boot disk, raw, as a new sparse file at `path`: the boot sector, then nothing.
pub(crate) fn write(guest: Guest, path: &Path) {
    let written = std::fs::write(path, boot_sector(guest))
        .and_then(|()| OpenOptions::new().write(true).open(path))
        .and_then(|file| file.set_len(DISK_SIZE));
    written.unwrap_or_else(|why| panic!("{}: {why}", path.display()));
}

/// The first sector of the guest's boot disk; the only one with anything on it.
pub(crate) fn boot_sector(guest: Guest) -> [u8; SECTOR] {
    let mut asm = Asm::new(LOADED_AT);
    start(&mut asm, guest);
    behave(&mut asm, guest);
    subroutines(&mut asm);
    let code = asm.assemble();
    assert!(code.len() <= SECTOR - SIGNATURE.len(), "{guest:?} does not fit: {} bytes", code.len());

    let mut sector = [0; SECTOR];
    sector[..code.len()].copy_from_slice(&code);
    sector[SECTOR - SIGNATURE.len()..].copy_from_slice(&SIGNATURE);
    sector
}

/// SeaBIOS boots no disk of less than one cylinder in its old geometry (16 × 63 sectors, 504 KiB): "could not read
/// the boot disk".
pub(crate) const DISK_SIZE: u64 = 1 << 20;

const SECTOR: usize = 512;
/// Without it the BIOS does not boot the disk.
const SIGNATURE: [u8; 2] = [0x55, 0xaa];
/// Where the BIOS puts the boot sector; SeaBIOS enters it as 0000:7c00.
const LOADED_AT: u16 = 0x7c00;

// Memory below the boot sector; the stack grows down from the counter.
const DISK_PACKET: u16 = 0x7010;
const DISK_INFO: u16 = 0x7040;
/// Memory above the boot sector.
const DISK_BUFFER: u16 = 0x8000;
/// The BIOS counts the timer's ticks here, 18.2 a second (BIOS data area, 0040:006c).
const BIOS_TICKS: u16 = 0x046c;

// ACPI's fixed registers, at the base 0x600 that SeaBIOS gives them on q35 and pc.
const PM1_STATUS: u16 = 0x600;
const PM1_ENABLE: u16 = 0x602;
const PM1_CONTROL: u16 = 0x604;
/// The same bit in the status register (write 1 to clear) and in the enable register.
const POWER_BUTTON: u16 = 1 << 8;
/// SLP_EN with the sleep type 0, which QEMU's DSDT names for S5, soft off.
const SOFT_OFF: u16 = 1 << 13;

/// QEMU's pvpanic device on ISA, and its "the guest has panicked".
const PVPANIC: u16 = 0x505;
const PVPANIC_PANICKED: u8 = 1;

/// The chipset's reset control register: bit 1 = the whole machine, bit 2 = now.
const RESET_CONTROL: u16 = 0xcf9;
const RESET_NOW: u8 = 0x06;

/// The real-time clock's memory; it outlives a reset, but not QEMU, which fills the unused part with zeros.
const CMOS_INDEX: u16 = 0x70;
const CMOS_DATA: u16 = 0x71;
const CMOS_UNUSED: u8 = 0x7f;

// The UART of the first serial port.
const UART_DATA: u16 = 0x3f8;
const UART_INTERRUPTS: u16 = 0x3f9;
const UART_FIFO: u16 = 0x3fa;
const UART_MODEM: u16 = 0x3fc;
const UART_STATUS: u16 = 0x3fd;
const UART_BYTE_CAME: u8 = 1 << 0;
const UART_CAN_SEND: u8 = 1 << 5;

/// The first interrupt controller's mask: a set bit keeps that interrupt off.
const PIC_MASK: u16 = 0x21;
const SERIAL_INTERRUPT: u8 = 1 << 4;

const BIOS_DISK: u8 = 0x13;
const SECOND_DISK: u8 = 0x81;

/// Offset and segment of the timer's interrupt (IRQ 0 is interrupt 8).
const TIMER_VECTOR: u16 = 4 * 8;
/// `mov [TIMER_VECTOR], si`
const MOV_TIMER_VECTOR_SI: &[u8] = &[0x89, 0x36, TIMER_VECTOR as u8, 0];
/// `inc dword cs:[BIOS_TICKS]`, the end of the interrupt to its controller (`out 0x20, al`), `iret`; whatever `ds` is.
const COUNT_A_TICK: &[u8] = &[0x2e, 0x66, 0xff, 0x06, 0x6c, 0x04, 0x50, 0xb0, 0x20, 0xe6, 0x20, 0x58, 0xcf];

/// What every guest does first.
fn start(asm: &mut Asm, guest: Guest) {
    asm.cli().flat_segments(COUNTER);
    asm.mov_mem32(COUNTER, 0);
    asm.out8(UART_FIFO, 1);
    // QEMU notes a press only if the button is enabled (hw/acpi/core.c, acpi_pm1_evt_power_down). The interrupt that
    // comes with it stays masked at the controller.
    asm.out16(PM1_ENABLE, POWER_BUTTON);
    // SeaBIOS prints its last messages to the serial port from its timer interrupt, in the middle of ours: this one only counts
    asm.mov_si_label("timer").bytes(MOV_TIMER_VECTOR_SI).mov_mem16(TIMER_VECTOR + 2, 0).sti();
    say(asm, guest.greeting());
}

/// What this guest does then. Ends in a jump: the subroutines follow.
fn behave(asm: &mut Asm, guest: Guest) {
    match guest {
        Guest::PowersOff => asm.jmp("power off"),
        Guest::ReactsToButton => off_at_button(asm),
        Guest::ReactsLate { seconds } => {
            wait_for_button(asm, "wait");
            say(asm, says::BUTTON);
            wait_seconds(asm, seconds);
            asm.jmp("power off")
        }
        Guest::SecondPress => {
            wait_for_button(asm, "first");
            say(asm, says::BUTTON);
            wait_for_button(asm, "second");
            asm.jmp("button off")
        }
        Guest::IgnoresButton => asm.label("idle").hlt().jmp("idle"),
        Guest::Halted => asm.jmp("halt"),
        Guest::Panics => panic_now(asm),
        Guest::PanicsOnButton => {
            wait_for_button(asm, "wait");
            say(asm, says::BUTTON);
            panic_now(asm)
        }
        Guest::ResetsForEver => reset_now(asm),
        Guest::Resets { times } => reset_times(asm, times),
        Guest::FloodsConsole => flood_console(asm),
        Guest::EchoesConsole => echo_console(asm),
        Guest::WritesDisk => write_disk(asm),
        Guest::Counts => count(asm),
    };
}

fn off_at_button(asm: &mut Asm) -> &mut Asm {
    wait_for_button(asm, "wait");
    asm.jmp("button off")
}

/// Sleeps until the button is pressed; `label` names the loop. The timer wakes it every 55 ms to look.
fn wait_for_button<'a>(asm: &'a mut Asm, label: &str) -> &'a mut Asm {
    asm.label(label).hlt().call("button?").jz(label)
}

fn wait_seconds(asm: &mut Asm, seconds: u16) {
    let ticks = (u32::from(seconds) * 182).div_ceil(10);
    // One more, for the tick that is already under way.
    asm.mov_cx(u16::try_from(ticks + 1).expect("less than an hour"));
    asm.label("tick").call("next tick").dec_cx().jnz("tick");
}

fn panic_now(asm: &mut Asm) -> &mut Asm {
    say(asm, says::PANIC);
    asm.out8(PVPANIC, PVPANIC_PANICKED).jmp("halt")
}

fn reset_now(asm: &mut Asm) -> &mut Asm {
    asm.out8(RESET_CONTROL, RESET_NOW).jmp("halt")
}

fn reset_times(asm: &mut Asm, times: u8) -> &mut Asm {
    asm.out8(CMOS_INDEX, CMOS_UNUSED).in8(CMOS_DATA);
    asm.cmp_al(times).jz("enough");
    asm.inc_al().out8_al(CMOS_DATA);
    reset_now(asm);
    asm.label("enough");
    off_at_button(asm)
}

fn flood_console(asm: &mut Asm) -> &mut Asm {
    asm.label("next").call("count line").mov_si_label("line").call("print");
    asm.inc_mem32(COUNTER);
    asm.call("button?").jz("next").jmp("button off");
    line_with_number(asm, "line ")
}

fn echo_console(asm: &mut Asm) -> &mut Asm {
    // An incoming byte must end `hlt` at once: the UART may interrupt (its modem register connects the interrupt line), and the
    // BIOS's handler for unexpected interrupts acknowledges it.
    asm.out8(UART_INTERRUPTS, UART_BYTE_CAME).out8(UART_MODEM, 0x0b);
    asm.in8(PIC_MASK).and_al(!SERIAL_INTERRUPT).out8_al(PIC_MASK);

    asm.label("next").call("button?").jnz("button off");
    // With interrupts off between looking and sleeping, no byte can come unnoticed.
    asm.cli().in8(UART_STATUS).test_al(UART_BYTE_CAME).jnz("byte came");
    asm.sti().hlt().jmp("next");

    asm.label("byte came").sti().in8(UART_DATA);
    asm.cmp_al(b'a').jc("send").cmp_al(b'z').ja("send");
    asm.sub_al(b'a' - b'A');
    asm.label("send").call("put").jmp("next")
}

fn write_disk(asm: &mut Asm) -> &mut Asm {
    // How long is the disk? The buffer's first word says how long the buffer is; the length of the disk is at 16.
    asm.label("ask size").mov_mem16(DISK_INFO, 0x1a);
    asm.mov_ah(0x48).mov_dl(SECOND_DISK).mov_si(DISK_INFO).int(BIOS_DISK).jc("no disk");
    // The packet of the extended write: its size, sectors, buffer's offset and segment, 64-bit sector number.
    asm.mov_mem16(DISK_PACKET, 16).mov_mem32(DISK_PACKET + 4, u32::from(DISK_BUFFER));
    asm.mov_mem32(DISK_PACKET + 8, 0).mov_mem32(DISK_PACKET + 12, 0);

    asm.label("next").mov_eax_mem(COUNTER).inc_eax();
    asm.mov_di(DISK_BUFFER).mov_cx(512 / 4).rep_stosd();
    // The BIOS overwrites the number of sectors with how many it did: set it for every try.
    asm.label("again").mov_mem16(DISK_PACKET + 2, 1);
    asm.mov_ax(0x4300).mov_dl(SECOND_DISK).mov_si(DISK_PACKET).int(BIOS_DISK).jc("failed");

    asm.inc_mem32(COUNTER).call("count line");
    asm.inc_mem32(DISK_PACKET + 8).mov_eax_mem(DISK_PACKET + 8).cmp_eax_mem(DISK_INFO + 16).jc("room left");
    asm.mov_mem32(DISK_PACKET + 8, 0);
    asm.label("room left").test_mem16(COUNTER, SECTORS_PER_REPORT - 1).jnz("reported");
    asm.mov_si_label("line").call("print");
    asm.label("reported").call("button?").jz("next").jmp("button off");

    asm.label("failed").call("complain").jz("again").jmp("button off");
    asm.label("no disk").call("complain").jz("ask size").jmp("button off");
    asm.label("complain");
    say(asm, says::ERROR);
    asm.call("next tick").jmp("button?");
    line_with_number(asm, "wrote ")
}

fn count(asm: &mut Asm) -> &mut Asm {
    // To ask for the button takes far longer than to count: ask now and then.
    asm.label("next").inc_mem32(COUNTER).test_mem16(COUNTER, 0x0fff).jnz("next");
    asm.call("button?").jz("next").jmp("button off")
}

/// The data and the subroutine of a line that ends in a number: `count line` adds one to it, digit by digit.
/// Goes wrong after 99,999,999 lines; at the 20,000 a second seen under TCG that is more than an hour.
fn line_with_number<'a>(asm: &'a mut Asm, text: &str) -> &'a mut Asm {
    asm.label("line").bytes(text.as_bytes()).bytes(b"0000000").label("last digit").bytes(b"0\r\n\0");
    asm.label("count line").mov_di_label("last digit");
    asm.label("digit").inc_byte_at_di().cmp_byte_at_di(b'9' + 1).jnz("counted");
    asm.mov_byte_at_di(b'0').dec_di().jmp("digit");
    asm.label("counted").ret()
}

/// Prints a line; uses `ax`, `dx` and `si`.
fn say<'a>(asm: &'a mut Asm, line: &str) -> &'a mut Asm {
    asm.mov_si_text(&format!("{line}\r\n")).call("print")
}

/// What the guests share, at the end of each.
fn subroutines(asm: &mut Asm) {
    asm.label("button off");
    say(asm, says::BUTTON);
    asm.label("power off");
    say(asm, says::OFF);
    asm.out16(PM1_CONTROL, SOFT_OFF);
    // QEMU does what it was asked only after a moment.
    asm.label("halt").cli().hlt().jmp("halt");

    asm.label("timer").bytes(COUNT_A_TICK);

    // Was the button pressed since the last time? Not zero = yes.
    asm.label("button?").in16(PM1_STATUS).and_ax(POWER_BUTTON).jz("not pressed");
    asm.out16_dx_ax(); // clears this bit, and leaves the flags alone
    asm.label("not pressed").ret();

    // Sleeps until the timer ticks, whatever else wakes it.
    asm.label("next tick").mov_al_mem(BIOS_TICKS);
    asm.label("same tick").hlt().cmp_al_mem(BIOS_TICKS).jz("same tick").ret();

    // Prints the text at si.
    asm.label("print").lodsb().cmp_al(0).jz("printed").call("put").jmp("print");
    asm.label("printed").ret();

    // Sends the byte in al, once there is room: QEMU has none while the other end is not read.
    asm.label("put").push_ax().jmp("room?");
    asm.label("no room").pause();
    asm.label("room?").in8(UART_STATUS).test_al(UART_CAN_SEND).jz("no room");
    asm.pop_ax().out8_al(UART_DATA).ret();
}
