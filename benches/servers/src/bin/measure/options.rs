//! The command line.

use std::fs;

/// What `--help` prints.
pub(crate) const HELP: &str = "\
Measures the same servers on greenling and on its neighbours, and prints a Markdown table.

  benches/servers/run [OPTION]...

  --smoke          one round of a second each: shows that everything works, the figures mean little
  --rounds N       rounds over all (5); the figure is the median
  --seconds N      seconds for each row of a server (3)
  --services A,B   only these of hello, kv, files
  --servers A,B    only these, by their names in the table
  --json FILE      the figures as a file, too";

/// What is to be measured, and how.
pub(crate) struct Options {
    pub(crate) rounds: usize,
    pub(crate) seconds: u64,
    services: Vec<String>,
    servers: Vec<String>,
    /// The core of the servers.
    pub(crate) core: usize,
    /// The core of the drivers.
    pub(crate) driver_core: usize,
}

impl Options {
    /// Reads the arguments; none if help is asked for.
    pub(crate) fn of(arguments: &[String]) -> Result<Option<Options>, String> {
        let cores = cores();
        let core = *cores.first().ok_or("no core")?;
        let driver_core = cores.get(1).copied().unwrap_or(core);
        let mut options =
            Options { rounds: 5, seconds: 3, services: Vec::new(), servers: Vec::new(), core, driver_core };
        let mut arguments = arguments.iter();
        while let Some(argument) = arguments.next() {
            let mut value = || arguments.next().cloned().ok_or_else(|| format!("{argument} wants a value"));
            let list = |text: String| text.split(',').map(str::to_owned).collect();
            match argument.as_str() {
                "--smoke" => (options.rounds, options.seconds) = (1, 1),
                "--rounds" => options.rounds = count(&value()?)?,
                "--seconds" => options.seconds = count(&value()?)? as u64,
                "--services" => options.services = list(value()?),
                "--servers" => options.servers = list(value()?),
                "--help" | "-h" => return Ok(None),
                other => return Err(format!("no option {other}")),
            }
        }
        for service in &options.services {
            if !["hello", "kv", "files"].contains(&service.as_str()) {
                return Err(format!("no service {service}"));
            }
        }
        Ok(Some(options))
    }

    /// Whether a service is to be measured.
    pub(crate) fn wants_service(&self, service: &str) -> bool {
        self.services.is_empty() || self.services.iter().any(|wanted| wanted == service)
    }

    /// Whether a server is to be measured.
    pub(crate) fn wants_server(&self, name: &str) -> bool {
        self.servers.is_empty() || self.servers.iter().any(|wanted| wanted == name)
    }

    /// The servers that are named, if not all are wanted.
    pub(crate) fn named(&self) -> &[String] {
        &self.servers
    }
}

/// A number from 1 to 60.
fn count(text: &str) -> Result<usize, String> {
    let number = text.parse().ok().filter(|number| (1..=60).contains(number));
    number.ok_or_else(|| format!("{text}: not a whole number from 1 to 60"))
}

/// The cores that this process may use.
fn cores() -> Vec<usize> {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).unwrap_or("0");
    let range = |part: &str| {
        let (first, last) = part.trim().split_once('-').unwrap_or((part.trim(), part.trim()));
        first.parse().unwrap_or(0)..=last.parse().unwrap_or(0)
    };
    list.split(',').flat_map(range).collect()
}
