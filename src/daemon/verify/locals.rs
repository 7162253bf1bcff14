//! Local changes: whether each plain file has an entry, and each entry its file.
//!
//! Nothing here is ever removed or mended: it is what somebody wrote. A workspace in use is looked at more than once,
//! because files come before their entries and go after them.

use std::path::Path;
use std::time::Duration;

use crate::daemon::facts::Sources;
use crate::daemon::protocol::{Failure, FailureClass};
use crate::index::overlay::check::{Amiss, plain_files};
use crate::store::verify::{Problem, Subject, Watch};
use crate::store::{StoreError, StoreErrorKind, Workspace};
use crate::vfs::attr::commit_stamp;

/// Looks at a workspace that may be in use.
const LOOKS: usize = 3;

/// Time between two of them: longer than an operation takes.
const PAUSE: Duration = Duration::from_millis(200);

/// A file of a workspace in use that has no entry is a copy in the making for at most so long.
const STRAY_AGE: Duration = Duration::from_mins(10);

/// Workspaces without a row whose changes are told.
const STRAYS_TOLD: usize = 20;

/// Checks rows and files of local changes.
pub(super) fn check(sources: &Sources<'_>, watch: &dyn Watch) -> Result<(), Failure> {
    sources.store.check_overlays(watch)?;
    for number in sources.store.stray_overlays()?.into_iter().take(STRAYS_TOLD) {
        watch.note(format!("there are local changes of workspace {number}, which is not known any more"));
    }
    let workspaces = match sources.store.workspaces() {
        // Its table is reported already.
        Err(error) if error.kind == StoreErrorKind::Corrupt => return Ok(()),
        workspaces => workspaces?,
    };
    for row in workspaces {
        if !watch.go_on(0) {
            return Ok(());
        }
        match files(sources, &row) {
            Ok(amiss) => tell(&row, amiss, watch),
            // Its rows are reported already.
            Err(failure) if failure.class == FailureClass::Corrupt => {
                watch.note(format!("files of local changes of {} could not be compared: {failure}", row.name));
            }
            Err(failure) => return Err(failure),
        }
    }
    Ok(())
}

fn files(sources: &Sources<'_>, row: &Workspace) -> Result<Amiss, Failure> {
    let directory = sources.config.home.join("overlay").join(row.id.0.to_string());
    let mut amiss = look(sources, row, &directory)?;
    if sources.daemon.is_none() {
        return Ok(amiss);
    }
    for _ in 1..LOOKS {
        if amiss.strays.is_empty() && amiss.lost.is_empty() {
            return Ok(amiss);
        }
        std::thread::sleep(PAUSE);
        amiss = look(sources, row, &directory)?.still(&amiss);
    }
    amiss.strays.retain(|_, path| is_old(path));
    Ok(amiss)
}

/// Whether nobody has written to it for a while.
fn is_old(path: &Path) -> bool {
    let modified = path.symlink_metadata().and_then(|found| found.modified());
    modified.is_ok_and(|at| at.elapsed().is_ok_and(|age| age > STRAY_AGE))
}

fn look(sources: &Sources<'_>, row: &Workspace, directory: &Path) -> Result<Amiss, Failure> {
    let unreadable = |error: std::io::Error| StoreError::writing(&directory.display().to_string(), &error);
    let files = plain_files(directory).map_err(unreadable)?;
    let live = sources.daemon.and_then(|daemon| daemon.overlays.lock().get(&row.id).cloned());
    let referred = if let Some(overlay) = live {
        overlay.referred()?
    } else {
        let time = match (row.base_time, row.current) {
            (Some(time), _) => time,
            (None, Some(current)) => sources.store.generation(row.id, current)?.map_or(0, |row| row.commit_time),
            (None, None) => 0,
        };
        sources.store.referred(row.id, Some(directory), commit_stamp(time).seconds)?
    };
    Ok(Amiss::new(referred, files))
}

fn tell(row: &Workspace, amiss: Amiss, watch: &dyn Watch) {
    for (number, path) in amiss.strays {
        let text = format!(
            "no entry names the file {}; it goes when the workspace is mounted next, so copy it if you miss something",
            path.display()
        );
        watch.found(Problem::new(Subject::Local(number), text).at(row.id, None));
    }
    for (number, holder) in amiss.lost {
        let text = format!(
            "its file {number} is gone, so it reads as empty; put that file back from a backup, or check the path out again"
        );
        watch.found(Problem::new(Subject::Local(number), text).at(row.id, Some(holder.path)));
    }
    if !amiss.empty.is_empty() {
        let text = "of their own: nothing was written to them, or it is still in the journal";
        watch.note(format!("local files of {} without a file {text}: {}", row.name, amiss.empty.len()));
    }
}
