//! Names for kernel addresses, from `/proc/kallsyms`.

use std::io::BufRead;
use std::sync::{Mutex, MutexGuard, PoisonError};

const KALLSYMS: &str = "/proc/kallsyms";
const MODULES: &str = "/proc/modules";
/// What x86 kernels from 6.2 on call the padding before a function: nothing runs there.
const PADDING: &str = "__pfx_";
const UNREADABLE: &str = "/proc/kallsyms cannot be read";
const NO_FUNCTION: &str = "the address is no kernel function's";
const HIDDEN: &str = "kernel addresses are hidden: kernel.kptr_restrict or CAP_SYSLOG is missing";

/// The reasons why an address has no name.
pub const REASONS: [&str; 3] = [UNREADABLE, NO_FUNCTION, HIDDEN];

/// The kernel's functions by address.
#[derive(Debug, Default)]
pub struct Symbols(Mutex<Option<Loaded>>);

#[derive(Debug)]
struct Loaded {
    modules: String,
    table: Result<Table, &'static str>,
}

#[derive(Debug, Default)]
struct Table {
    /// Where functions start, ascending, and where in `names` theirs is.
    starts: Vec<(u64, u32)>,
    /// Each with a line's end.
    names: String,
}

impl Symbols {
    /// Reads them, if not done before, which takes 50-500 ms; who asks for a name meanwhile waits.
    pub fn load(&self) {
        drop(self.loaded());
    }

    /// `function+0xoffset` of an address, or why there is no name for it.
    pub fn name(&self, address: u64) -> Result<String, &'static str> {
        let loaded = self.loaded();
        let table = loaded.as_ref().ok_or(UNREADABLE)?.table.as_ref().map_err(|why| *why)?;
        table.name(address).ok_or(NO_FUNCTION)
    }

    /// As of the modules that are there now.
    fn loaded(&self) -> MutexGuard<'_, Option<Loaded>> {
        let mut loaded = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let modules = modules();
        if loaded.as_ref().is_none_or(|loaded| loaded.modules != modules) {
            *loaded = Some(Loaded { modules, table: load() });
        }
        loaded
    }
}

impl Table {
    fn name(&self, address: u64) -> Option<String> {
        let after = self.starts.partition_point(|(start, _)| *start <= address);
        let (start, name) = self.starts.get(after.checked_sub(1)?)?;
        let name = self.names.get(*name as usize..)?.lines().next()?;
        Some(format!("{name}+{:#x}", address - start))
    }
}

/// The names of the loaded modules; what else stands there changes while they are used.
fn modules() -> String {
    let text = std::fs::read_to_string(MODULES).unwrap_or_default();
    text.lines().filter_map(|line| line.split(' ').next()).flat_map(|name| [name, " "]).collect()
}

fn load() -> Result<Table, &'static str> {
    let file = std::fs::File::open(KALLSYMS).map_err(|_| UNREADABLE)?;
    parse(std::io::BufReader::new(file))
}

fn parse(mut text: impl BufRead) -> Result<Table, &'static str> {
    let mut table = Table::default();
    let mut line = String::new();
    while text.read_line(&mut line).map_err(|_| UNREADABLE)? > 0 {
        let mut words = line.split_ascii_whitespace();
        if let (Some(address), Some("t" | "T" | "w" | "W"), Some(name)) =
            (words.next(), words.next(), words.next())
            && let Ok(address @ 1..) = u64::from_str_radix(address, 16)
            && !name.starts_with(PADDING)
        {
            table.starts.push((address, u32::try_from(table.names.len()).map_err(|_| UNREADABLE)?));
            table.names.extend([name, "\n"]);
        }
        line.clear();
    }
    if table.starts.is_empty() {
        return Err(HIDDEN);
    }
    table.starts.sort_unstable();
    table.starts.shrink_to_fit();
    table.names.shrink_to_fit();
    Ok(table)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "ffffffff81000000 T _stext\nffffffff81000100 t ip_forward\nffffffff81000200 D some_data\n\
                        ffffffff810002b0 t __pfx_ip_input\n\
                        ffffffffc0000000 t br_forward\t[bridge]\n";

    #[test]
    fn names_an_address_by_the_function_it_is_in() {
        let table = parse(TEXT.as_bytes()).unwrap();
        assert_eq!(table.name(0xffff_ffff_8100_02c0).unwrap(), "ip_forward+0x1c0");
        assert_eq!(table.name(0xffff_ffff_c000_0000).unwrap(), "br_forward+0x0");
        assert_eq!(table.name(1), None);
    }

    #[test]
    fn says_why_addresses_are_hidden() {
        let hidden = "0000000000000000 T _stext\n0000000000000000 T ip_forward\n";
        assert!(parse(hidden.as_bytes()).unwrap_err().contains("kptr_restrict"));
    }
}
