//! Checkout conversions: what the mount shows is what a checkout would write.
//!
//! Owns: the user's settings (`settings`), attributes of paths
//! (`attributes`), conversions without a program (`builtin`) and drivers
//! (`driver`, `watch`). It implements [`Conversions`] for `vfs`.
//!
//! Refuses: to run a driver that the user's own configuration does not
//! define, to run one inside the mount, to wait for one that does nothing, and
//! to convert more than [`INPUT_BYTES`] in memory.
//!
//! Settings and attribute files outside of the tree are read once, when the
//! workspace is prepared or mounted again, as a checkout reads them once.

mod attributes;
mod builtin;
mod driver;
mod settings;
#[cfg(test)]
mod tests;
mod watch;

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use gix::ObjectId;
use parking_lot::Mutex;
use tokio::sync::Semaphore;

use self::attributes::{Chain, Outside, Spec};
use self::driver::{Driver, Host};
use self::settings::Settings;
use crate::git::environment::Environment;
use crate::index::IndexError;
use crate::index::convert::{
    AttributesFile, Conversion, Conversions, ConvertError, ConvertErrorKind, Output, Rules, RulesError, Source,
};
use crate::store::{EntryKind, Store, converted_id};

/// Larger blobs are not converted: their bytes and those they become are in memory together. Drivers such as Git LFS are
/// given pointers of a hundred bytes; what they make of them has no such limit.
pub const INPUT_BYTES: u64 = 256 << 20;

/// Longest that `git config` may take.
const CONFIG_TIMEOUT: Duration = Duration::from_secs(30);

/// Sets of attribute files kept, one a directory that has some.
const CHAINS_KEPT: usize = 256;

/// For which workspace files are converted.
pub struct Checkout {
    /// The client's variables; empty means those of this process.
    pub environment: Vec<(String, String)>,
    /// The common gitdir.
    pub common: PathBuf,
    /// The workspace's entry in it.
    pub admin: PathBuf,
    /// Where drivers run and large output is gathered: outside of every mount, made when it is missing.
    pub scratch: PathBuf,
    /// Longest silence of a driver.
    pub timeout: Duration,
    /// The commit that is checked out.
    pub commit: ObjectId,
    /// The ref it was found by.
    pub reference: Option<String>,
}

/// The conversions of one workspace's generation.
pub struct GitConversions {
    store: Store,
    settings: Settings,
    outside: Outside,
    drivers: BTreeMap<String, Arc<Driver>>,
    host: Arc<Host>,
    // Guards the cache alone.
    chains: Mutex<HashMap<Vec<AttributesFile>, Arc<Chain>>>,
    // Guards the table alone; rules are few, as many as there are different sets of attributes.
    rules: Mutex<HashMap<Spec, Arc<Rule>>>,
}

impl GitConversions {
    /// Reads the user's settings; runs one `git config`.
    pub fn new(store: Store, checkout: Checkout) -> std::io::Result<Self> {
        let environment = Environment::new(checkout.environment, Some(checkout.admin.clone()), CONFIG_TIMEOUT);
        let settings = Settings::read(&environment);
        let outside = Outside::read(&settings, &checkout.common);
        let host = Arc::new(Host {
            environment,
            gitdir: checkout.admin,
            directory: checkout.scratch,
            timeout: checkout.timeout,
            reference: checkout.reference,
            commit: checkout.commit.to_string(),
            closed: AtomicBool::new(false),
        });
        let drivers: BTreeMap<String, Arc<Driver>> = settings
            .drivers
            .iter()
            .filter(|(_, driver)| driver.matters())
            .map(|(name, driver)| (name.clone(), Arc::new(Driver::new(name, driver.clone(), Arc::clone(&host)))))
            .collect();
        if !drivers.is_empty() {
            std::fs::create_dir_all(&host.directory)?;
        }
        let (chains, rules) = (Mutex::default(), Mutex::default());
        Ok(Self { store, settings, outside, drivers, host, chains, rules })
    }

    /// Whether any file can have a conversion, where `blobs` are all attribute files of the tree.
    pub fn may_convert(&self, blobs: &[ObjectId]) -> Result<bool, RulesError> {
        // All of them are needed whatever one of them says.
        let missing = self.store.missing_blobs(blobs).map_err(IndexError::from)?;
        if !missing.is_empty() {
            return Err(RulesError::Missing(missing));
        }
        let mut may = self.outside.may_convert(&self.settings);
        for blob in blobs {
            may = may || attributes::may_convert(&attributes::content(&self.store, *blob)?, &self.settings);
        }
        Ok(may)
    }

    fn chain(&self, files: &[AttributesFile]) -> Result<Arc<Chain>, RulesError> {
        if let Some(chain) = self.chains.lock().get(files) {
            return Ok(Arc::clone(chain));
        }
        let chain = Chain::new(&self.store, &self.outside, &self.settings, files)?;
        let mut chains = self.chains.lock();
        if chains.len() >= CHAINS_KEPT {
            chains.clear();
        }
        chains.insert(files.to_vec(), Arc::clone(&chain));
        Ok(chain)
    }

    fn rule(&self, spec: Spec) -> Option<Arc<dyn Conversion>> {
        if spec == Spec::default() {
            return None;
        }
        let mut rules = self.rules.lock();
        let rule = rules.entry(spec).or_insert_with_key(|spec| {
            let driver = spec.driver.as_ref().and_then(|name| self.drivers.get(name)).cloned();
            Arc::new(Rule::new(spec.clone(), driver))
        });
        Some(Arc::clone(rule) as Arc<dyn Conversion>)
    }
}

impl Conversions for GitConversions {
    fn rules(
        &self,
        directory: &[u8],
        chain: &[AttributesFile],
        entries: &mut dyn Iterator<Item = (&[u8], EntryKind)>,
    ) -> Result<Option<Rules>, RulesError> {
        let chain = self.chain(chain)?;
        if !chain.converts {
            return Ok(None);
        }
        let paths: Vec<Option<Vec<u8>>> = entries
            .map(|(name, kind)| {
                let file = matches!(kind, EntryKind::File | EntryKind::Executable);
                let slash: &[u8] = if directory.is_empty() { b"" } else { b"/" };
                file.then(|| [directory, slash, name].concat())
            })
            .collect();
        let complain = |path: &[u8], reason: &str| tracing::warn!("{}: {reason}", String::from_utf8_lossy(path));
        let specs = chain.specs(&self.settings, paths.iter().map(Option::as_deref), complain)?;
        let rules: Rules = specs.into_iter().map(|spec| self.rule(spec)).collect();
        Ok(rules.iter().any(Option::is_some).then_some(rules))
    }

    fn close(&self) {
        self.host.closed.store(true, Ordering::SeqCst);
        for driver in self.drivers.values() {
            driver.close();
        }
    }
}

impl Drop for GitConversions {
    fn drop(&mut self) {
        self.close();
    }
}

/// One set of attributes that converts.
struct Rule {
    spec: Spec,
    driver: Option<Arc<Driver>>,
    key: Vec<u8>,
}

impl Rule {
    fn new(spec: Spec, driver: Option<Arc<Driver>>) -> Self {
        let encoding = spec.encoding.map(builtin::Encoding::key);
        let driver_key = driver.as_ref().map(|driver| driver.key());
        let key = format!("{:?}\0{}\0{encoding:?}\0{driver_key:?}\0", spec.eol, spec.ident).into_bytes();
        Self { spec, driver, key }
    }
}

impl Conversion for Rule {
    fn id(&self, source: &ObjectId, path: &[u8]) -> ObjectId {
        // A driver is told the path, and may go by it.
        let path = if self.driver.is_some() { path } else { b"" };
        converted_id(source, &[&self.key, path].concat())
    }

    fn lane(&self) -> Option<&Arc<Semaphore>> {
        self.driver.as_ref().map(|driver| &driver.lane)
    }

    fn convert(&self, source: &Source<'_>) -> Result<Output, ConvertError> {
        if source.raw.len() as u64 > INPUT_BYTES {
            let path = String::from_utf8_lossy(source.path);
            let text = format!("{path}: {} bytes are more than can be converted ({INPUT_BYTES})", source.raw.len());
            return Err(ConvertError::new(ConvertErrorKind::TooLarge, text));
        }
        // Git's order.
        let mut made: Option<Vec<u8>> = None;
        if self.spec.ident {
            made = builtin::expand_ident(source.raw, &source.id);
        }
        let now = made.as_deref().unwrap_or(source.raw);
        if let Some(ended) = builtin::end_lines(now, self.spec.eol) {
            made = Some(ended);
        }
        if let Some(encoding) = self.spec.encoding {
            let now = made.as_deref().unwrap_or(source.raw);
            // Git leaves an empty file alone: it gets no byte order mark.
            match encoding.encode(now) {
                _ if now.is_empty() => {}
                Some(encoded) => made = Some(encoded),
                None => {
                    let path = String::from_utf8_lossy(source.path);
                    tracing::warn!("{path}: can't be encoded in {}; shown as it is stored", encoding.key());
                }
            }
        }
        if let Some(driver) = &self.driver {
            match driver.smudge(source, made.as_deref().unwrap_or(source.raw))? {
                Output::Same => {}
                Output::Bytes(bytes) => made = Some(bytes),
                spooled @ Output::Spooled(..) => return Ok(spooled),
            }
        }
        Ok(match made {
            Some(bytes) if bytes != source.raw => Output::Bytes(bytes),
            _ => Output::Same,
        })
    }
}
