//! In what images are packed, and which program unpacks it from its standard input.

/// A kind of packing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Packing {
    /// `.xz`.
    Xz,
    /// `.gz`.
    Gzip,
    /// `.zst`.
    Zstd,
    /// `.bz2`.
    Bzip2,
    /// `.lz4`.
    Lz4,
    /// `.lz`.
    Lzip,
    /// An archive of files, an appliance (`.ova`) among them.
    Tar,
    /// Another.
    Zip,
}

impl Packing {
    /// The command with which a person unpacks it.
    pub fn command(self) -> &'static str {
        match self {
            Self::Xz => "xz -dk",
            Self::Gzip => "gunzip -k",
            Self::Zstd => "zstd -d",
            Self::Bzip2 => "bunzip2 -k",
            Self::Lz4 => "lz4 -d",
            Self::Lzip => "lzip -dk",
            Self::Tar => "tar -xf",
            Self::Zip => "unzip",
        }
    }

    pub(super) fn program(self) -> &'static str {
        match self {
            Self::Xz => "xz",
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
            Self::Bzip2 => "bzip2",
            Self::Lz4 => "lz4",
            Self::Lzip => "lzip",
            Self::Tar => "tar",
            Self::Zip => "unzip",
        }
    }

    pub(super) fn package(self) -> &'static str {
        match self {
            Self::Xz => "xz-utils",
            other => other.program(),
        }
    }

    /// What makes the program write to its standard output what is packed; an archive's needs a name behind it.
    pub(super) fn arguments(self) -> &'static [&'static str] {
        match self {
            // as many threads as there are processors, where xz is new enough
            Self::Xz => &["-dc", "-T0"],
            Self::Gzip | Self::Bzip2 | Self::Lz4 | Self::Lzip => &["-dc"],
            // images are compressed with large windows, which have to be asked for
            Self::Zstd => &["-dcq", "--long=31"],
            Self::Tar => &["-xOf", "-", "--occurrence=1", "--"],
            // it has to jump in the file, and opens it anew by this name
            Self::Zip => &["-p", "/dev/stdin"],
        }
    }

    /// What makes the program list the names in an archive, a line each.
    pub(super) fn listing(self) -> Option<&'static [&'static str]> {
        match self {
            Self::Tar => Some(&["-tf", "-", "--quoting-style=literal"]),
            Self::Zip => Some(&["-Z1", "/dev/stdin"]),
            _ => None,
        }
    }
}
