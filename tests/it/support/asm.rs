//! A tiny assembler for 16-bit x86: just the instructions that the boot sectors use.
//!
//! Methods are named after the instruction and its operands, emit bytes in the order of the calls, and chain. Jumps
//! and calls always take the 16-bit form, so their size is known before their target is. A mistake in a program (a
//! label missing or set twice) is a mistake in the tests and panics.

use std::collections::HashMap;

/// Machine code in the making, to be loaded at `origin` with all segment registers 0.
pub(crate) struct Asm {
    origin: u16,
    code: Vec<u8>,
    labels: HashMap<String, u16>,
    holes: Vec<Hole>,
    texts: Vec<String>,
}

/// Two bytes that can be filled in only once all labels are known.
struct Hole {
    offset: usize,
    label: String,
    kind: HoleKind,
}

enum HoleKind {
    /// The distance from the end of the instruction, which the hole ends.
    Relative,
    /// The address of the label.
    Absolute,
}

/// Control flow.
impl Asm {
    pub(crate) fn new(origin: u16) -> Self {
        Self { origin, code: Vec::new(), labels: HashMap::new(), holes: Vec::new(), texts: Vec::new() }
    }

    /// Names the address of whatever comes next.
    pub(crate) fn label(&mut self, name: &str) -> &mut Self {
        let here = self.origin + address(self.code.len());
        assert!(self.labels.insert(name.to_owned(), here).is_none(), "label `{name}` is set twice");
        self
    }

    pub(crate) fn jmp(&mut self, label: &str) -> &mut Self {
        self.bytes(&[0xe9]).relative(label)
    }

    /// Jumps if the result was zero; after a comparison: if equal.
    pub(crate) fn jz(&mut self, label: &str) -> &mut Self {
        self.bytes(&[0x0f, 0x84]).relative(label)
    }

    /// Jumps if the result was not zero; after a comparison: if not equal.
    pub(crate) fn jnz(&mut self, label: &str) -> &mut Self {
        self.bytes(&[0x0f, 0x85]).relative(label)
    }

    /// Jumps on carry, which is how the BIOS reports an error; after an unsigned comparison: if below.
    pub(crate) fn jc(&mut self, label: &str) -> &mut Self {
        self.bytes(&[0x0f, 0x82]).relative(label)
    }

    /// After an unsigned comparison: jumps if above.
    pub(crate) fn ja(&mut self, label: &str) -> &mut Self {
        self.bytes(&[0x0f, 0x87]).relative(label)
    }

    pub(crate) fn call(&mut self, label: &str) -> &mut Self {
        self.bytes(&[0xe8]).relative(label)
    }

    pub(crate) fn ret(&mut self) -> &mut Self {
        self.bytes(&[0xc3])
    }

    /// Calls the BIOS.
    pub(crate) fn int(&mut self, number: u8) -> &mut Self {
        self.bytes(&[0xcd, number])
    }
}

/// The processor's own state.
impl Asm {
    /// Interrupts off.
    pub(crate) fn cli(&mut self) -> &mut Self {
        self.bytes(&[0xfa])
    }

    /// Interrupts on, *after* the next instruction: `sti` + `hlt` cannot miss one in between.
    pub(crate) fn sti(&mut self) -> &mut Self {
        self.bytes(&[0xfb])
    }

    /// Sleeps until the next interrupt.
    pub(crate) fn hlt(&mut self) -> &mut Self {
        self.bytes(&[0xf4])
    }

    /// Tells the processor (and QEMU, which then looks at its other work) that this is a busy loop.
    pub(crate) fn pause(&mut self) -> &mut Self {
        self.bytes(&[0xf3, 0x90])
    }

    /// `ds`, `es` and `ss` become 0, the stack grows down from `stack`, string instructions count up.
    pub(crate) fn flat_segments(&mut self, stack: u16) -> &mut Self {
        self.bytes(&[0x31, 0xc0]) // xor ax, ax
            .bytes(&[0x8e, 0xd8]) // mov ds, ax
            .bytes(&[0x8e, 0xc0]) // mov es, ax
            .bytes(&[0x8e, 0xd0]) // mov ss, ax: holds interrupts off for one instruction, so that …
            .bytes(&[0xbc]) // … mov sp, stack is never too late
            .word(stack)
            .bytes(&[0xfc]) // cld
    }
}

/// Ports. All of these use `dx` for the port's number.
impl Asm {
    /// Writes a byte; uses `al`.
    pub(crate) fn out8(&mut self, port: u16, value: u8) -> &mut Self {
        self.mov_al(value).out8_al(port)
    }

    pub(crate) fn out8_al(&mut self, port: u16) -> &mut Self {
        self.mov_dx(port).bytes(&[0xee])
    }

    /// Writes a word; uses `ax`.
    pub(crate) fn out16(&mut self, port: u16, value: u16) -> &mut Self {
        self.mov_ax(value).mov_dx(port).out16_dx_ax()
    }

    /// Writes `ax` to the port already in `dx`; leaves the flags alone.
    pub(crate) fn out16_dx_ax(&mut self) -> &mut Self {
        self.bytes(&[0xef])
    }

    /// Reads a byte into `al`.
    pub(crate) fn in8(&mut self, port: u16) -> &mut Self {
        self.mov_dx(port).bytes(&[0xec])
    }

    /// Reads a word into `ax`.
    pub(crate) fn in16(&mut self, port: u16) -> &mut Self {
        self.mov_dx(port).bytes(&[0xed])
    }
}

/// Registers.
impl Asm {
    pub(crate) fn mov_al(&mut self, value: u8) -> &mut Self {
        self.bytes(&[0xb0, value])
    }

    pub(crate) fn mov_ah(&mut self, value: u8) -> &mut Self {
        self.bytes(&[0xb4, value])
    }

    pub(crate) fn mov_dl(&mut self, value: u8) -> &mut Self {
        self.bytes(&[0xb2, value])
    }

    pub(crate) fn mov_ax(&mut self, value: u16) -> &mut Self {
        self.bytes(&[0xb8]).word(value)
    }

    pub(crate) fn mov_cx(&mut self, value: u16) -> &mut Self {
        self.bytes(&[0xb9]).word(value)
    }

    pub(crate) fn mov_dx(&mut self, value: u16) -> &mut Self {
        self.bytes(&[0xba]).word(value)
    }

    pub(crate) fn mov_si(&mut self, value: u16) -> &mut Self {
        self.bytes(&[0xbe]).word(value)
    }

    pub(crate) fn mov_di(&mut self, value: u16) -> &mut Self {
        self.bytes(&[0xbf]).word(value)
    }

    pub(crate) fn mov_si_label(&mut self, label: &str) -> &mut Self {
        self.bytes(&[0xbe]).absolute(label)
    }

    pub(crate) fn mov_di_label(&mut self, label: &str) -> &mut Self {
        self.bytes(&[0xbf]).absolute(label)
    }

    /// Points `si` at this text, ended by a zero byte, which is put behind the program.
    pub(crate) fn mov_si_text(&mut self, text: &str) -> &mut Self {
        let label = text_label(self.texts.len());
        self.texts.push(text.to_owned());
        self.mov_si_label(&label)
    }

    pub(crate) fn push_ax(&mut self) -> &mut Self {
        self.bytes(&[0x50])
    }

    pub(crate) fn pop_ax(&mut self) -> &mut Self {
        self.bytes(&[0x58])
    }

    pub(crate) fn and_al(&mut self, mask: u8) -> &mut Self {
        self.bytes(&[0x24, mask])
    }

    pub(crate) fn and_ax(&mut self, mask: u16) -> &mut Self {
        self.bytes(&[0x25]).word(mask)
    }

    pub(crate) fn test_al(&mut self, mask: u8) -> &mut Self {
        self.bytes(&[0xa8, mask])
    }

    pub(crate) fn cmp_al(&mut self, value: u8) -> &mut Self {
        self.bytes(&[0x3c, value])
    }

    pub(crate) fn sub_al(&mut self, value: u8) -> &mut Self {
        self.bytes(&[0x2c, value])
    }

    pub(crate) fn inc_al(&mut self) -> &mut Self {
        self.bytes(&[0xfe, 0xc0])
    }

    pub(crate) fn inc_eax(&mut self) -> &mut Self {
        self.bytes(&[0x66, 0x40])
    }

    pub(crate) fn dec_cx(&mut self) -> &mut Self {
        self.bytes(&[0x49])
    }

    pub(crate) fn dec_di(&mut self) -> &mut Self {
        self.bytes(&[0x4f])
    }
}

/// Memory, at fixed addresses or at labels.
impl Asm {
    /// `al` = the byte at `si`, and `si` moves on.
    pub(crate) fn lodsb(&mut self) -> &mut Self {
        self.bytes(&[0xac])
    }

    /// Stores `eax` `cx` times from `di` upwards.
    pub(crate) fn rep_stosd(&mut self) -> &mut Self {
        self.bytes(&[0xf3, 0x66, 0xab])
    }

    pub(crate) fn mov_al_mem(&mut self, address: u16) -> &mut Self {
        self.bytes(&[0xa0]).word(address)
    }

    pub(crate) fn cmp_al_mem(&mut self, address: u16) -> &mut Self {
        self.bytes(&[0x3a, 0x06]).word(address)
    }

    pub(crate) fn mov_eax_mem(&mut self, address: u16) -> &mut Self {
        self.bytes(&[0x66, 0xa1]).word(address)
    }

    pub(crate) fn cmp_eax_mem(&mut self, address: u16) -> &mut Self {
        self.bytes(&[0x66, 0x3b, 0x06]).word(address)
    }

    pub(crate) fn test_mem16(&mut self, address: u16, mask: u16) -> &mut Self {
        self.bytes(&[0xf7, 0x06]).word(address).word(mask)
    }

    pub(crate) fn mov_mem16(&mut self, address: u16, value: u16) -> &mut Self {
        self.bytes(&[0xc7, 0x06]).word(address).word(value)
    }

    pub(crate) fn mov_mem32(&mut self, address: u16, value: u32) -> &mut Self {
        self.bytes(&[0x66, 0xc7, 0x06]).word(address).bytes(&value.to_le_bytes())
    }

    pub(crate) fn inc_mem32(&mut self, address: u16) -> &mut Self {
        self.bytes(&[0x66, 0xff, 0x06]).word(address)
    }

    pub(crate) fn inc_byte_at_di(&mut self) -> &mut Self {
        self.bytes(&[0xfe, 0x05])
    }

    pub(crate) fn cmp_byte_at_di(&mut self, value: u8) -> &mut Self {
        self.bytes(&[0x80, 0x3d, value])
    }

    pub(crate) fn mov_byte_at_di(&mut self, value: u8) -> &mut Self {
        self.bytes(&[0xc6, 0x05, value])
    }
}

/// Bytes.
impl Asm {
    /// Data, or an instruction that has no method.
    pub(crate) fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.code.extend_from_slice(bytes);
        self
    }

    pub(crate) fn word(&mut self, word: u16) -> &mut Self {
        self.bytes(&word.to_le_bytes())
    }

    fn relative(&mut self, label: &str) -> &mut Self {
        self.hole(label, HoleKind::Relative)
    }

    fn absolute(&mut self, label: &str) -> &mut Self {
        self.hole(label, HoleKind::Absolute)
    }

    fn hole(&mut self, label: &str, kind: HoleKind) -> &mut Self {
        self.holes.push(Hole { offset: self.code.len(), label: label.to_owned(), kind });
        self.word(0)
    }

    /// The finished code: program, then texts, with every label filled in.
    pub(crate) fn assemble(mut self) -> Vec<u8> {
        for (index, text) in std::mem::take(&mut self.texts).iter().enumerate() {
            self.label(&text_label(index)).bytes(text.as_bytes()).bytes(&[0]);
        }
        for hole in &self.holes {
            let Some(&target) = self.labels.get(&hole.label) else {
                panic!("label `{}` is missing", hole.label)
            };
            let value = match hole.kind {
                HoleKind::Absolute => target,
                HoleKind::Relative => {
                    let end_of_hole = self.origin + address(hole.offset + 2);
                    target.wrapping_sub(end_of_hole)
                }
            };
            self.code[hole.offset..hole.offset + 2].copy_from_slice(&value.to_le_bytes());
        }
        self.code
    }
}

fn text_label(index: usize) -> String {
    format!("text {index}")
}

/// An offset in the code as a 16-bit number.
fn address(offset: usize) -> u16 {
    u16::try_from(offset).expect("programs here are a few hundred bytes long")
}
