//! Names for kernel addresses, from `/proc/kallsyms`.

use std::sync::OnceLock;

const KALLSYMS: &str = "/proc/kallsyms";
const UNREADABLE: &str = "/proc/kallsyms cannot be read";
const NO_FUNCTION: &str = "the address is no kernel function's";
const HIDDEN: &str = "kernel addresses are hidden: kernel.kptr_restrict or CAP_SYSLOG is missing";

/// The reasons why an address has no name.
pub const REASONS: [&str; 3] = [UNREADABLE, NO_FUNCTION, HIDDEN];

/// Start address and name, ascending.
type Table = Vec<(u64, Box<str>)>;

/// The kernel's functions by address; read on first use.
#[derive(Debug, Default)]
pub struct Symbols {
    loaded: OnceLock<Result<Table, &'static str>>,
}

impl Symbols {
    /// `function+0xoffset` of an address, or why there is no name for it.
    pub fn name(&self, address: u64) -> Result<String, &'static str> {
        let table = self.loaded.get_or_init(load).as_ref().map_err(|why| *why)?;
        let after = table.partition_point(|(start, _)| *start <= address);
        let (start, name) = after.checked_sub(1).and_then(|at| table.get(at)).ok_or(NO_FUNCTION)?;
        Ok(format!("{name}+{:#x}", address - start))
    }
}

fn load() -> Result<Table, &'static str> {
    let file = std::fs::File::open(KALLSYMS).map_err(|_| UNREADABLE)?;
    parse(std::io::BufReader::new(file))
}

fn parse(text: impl std::io::BufRead) -> Result<Table, &'static str> {
    let mut table = Vec::new();
    for line in text.lines() {
        let line = line.map_err(|_| UNREADABLE)?;
        let mut words = line.split_ascii_whitespace();
        let (Some(address), Some(kind), Some(name)) = (words.next(), words.next(), words.next()) else {
            continue;
        };
        if let (Ok(address @ 1..), "t" | "T" | "w" | "W") = (u64::from_str_radix(address, 16), kind) {
            table.push((address, name.into()));
        }
    }
    if table.is_empty() {
        return Err(HIDDEN);
    }
    table.sort_unstable();
    Ok(table)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "ffffffff81000000 T _stext\nffffffff81000100 t ip_forward\nffffffff81000200 D some_data\n\
                        ffffffffc0000000 t br_forward\t[bridge]\n";

    #[test]
    fn names_an_address_by_the_function_it_is_in() {
        let symbols = Symbols::default();
        symbols.loaded.set(parse(TEXT.as_bytes())).unwrap();
        assert_eq!(symbols.name(0xffff_ffff_8100_02c0).unwrap(), "ip_forward+0x1c0");
        assert_eq!(symbols.name(0xffff_ffff_c000_0000).unwrap(), "br_forward+0x0");
        assert_eq!(symbols.name(1).unwrap_err(), "the address is no kernel function's");
    }

    #[test]
    fn says_why_addresses_are_hidden() {
        let hidden = "0000000000000000 T _stext\n0000000000000000 T ip_forward\n";
        assert!(parse(hidden.as_bytes()).unwrap_err().contains("kptr_restrict"));
    }
}
