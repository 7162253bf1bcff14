//! Which directory follows from which environment.

use super::*;

fn paths(variables: &[(&str, &str)], run_user: &Path) -> Result<Config, ConfigError> {
    let variable = |name: &str| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| OsString::from(value));
    resolve(&Surroundings {
        variable: &variable,
        home: variable("HOME").map(PathBuf::from),
        uid: rustix::process::getuid().as_raw(),
        run_user,
    })
}

fn settings_of(file: &Path) -> Result<Settings, ConfigError> {
    Reading::of_file(file, false).whole()
}

const NOWHERE: &str = "/nonexistent";

#[test]
fn larder_home_holds_everything() {
    let all = [("LARDER_HOME", "/l"), ("XDG_DATA_HOME", "/d"), ("XDG_RUNTIME_DIR", "/r"), ("XDG_CONFIG_HOME", "/c")];
    let config = paths(&all, Path::new(NOWHERE)).expect("resolvable");
    assert_eq!(config.home, Path::new("/l"));
    assert_eq!(config.socket, Path::new("/l/run/daemon.sock"));
    assert_eq!(config.config_file, Path::new("/c/larder/config.toml"));
    assert!(config.store_path.starts_with("/l") && config.log_path.starts_with("/l"));
    assert!(config.start_lock.starts_with("/l/run"));
}

#[test]
fn xdg_directories_come_next() {
    let config = paths(&[("XDG_DATA_HOME", "/d"), ("XDG_RUNTIME_DIR", "/r"), ("HOME", "/h")], Path::new(NOWHERE))
        .expect("resolvable");
    assert_eq!(config.home, Path::new("/d/larder"));
    assert_eq!(config.run_dir, Path::new("/r/larder"));
    assert_eq!(config.config_file, Path::new("/h/.config/larder/config.toml"));
}

#[test]
fn the_home_directory_is_the_fallback_and_empty_or_relative_variables_count_as_unset() {
    let variables = [("LARDER_HOME", ""), ("XDG_DATA_HOME", "data"), ("XDG_RUNTIME_DIR", ""), ("HOME", "/h")];
    let config = paths(&variables, Path::new(NOWHERE)).expect("resolvable");
    assert_eq!(config.home, Path::new("/h/.local/share/larder"));
    assert_eq!(config.run_dir, Path::new("/h/.local/share/larder/run"));
    assert!(matches!(paths(&[], Path::new(NOWHERE)), Err(ConfigError::NoHome)));
}

#[test]
fn a_run_directory_of_ours_serves_without_xdg_runtime_dir() {
    let run_user = tempfile::tempdir().expect("temporary directory");
    let ours = run_user.path().join(rustix::process::getuid().as_raw().to_string());
    let without = paths(&[("HOME", "/h")], run_user.path()).expect("resolvable");
    assert_eq!(without.run_dir, Path::new("/h/.local/share/larder/run"));
    fs::create_dir(&ours).expect("create");
    let with = paths(&[("HOME", "/h")], run_user.path()).expect("resolvable");
    assert_eq!(with.run_dir, ours.join("larder"));
}

#[test]
fn a_relative_larder_home_is_made_absolute() {
    let config = paths(&[("LARDER_HOME", "state")], Path::new(NOWHERE)).expect("resolvable");
    assert!(config.home.is_absolute() && config.home.ends_with("state"));
}

#[test]
fn directories_are_made_private_and_open_ones_closed() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let home = dir.path().join("a/b");
    let config = paths(&[("LARDER_HOME", home.to_str().expect("UTF-8"))], Path::new(NOWHERE)).expect("resolvable");
    config.create_directories().expect("created");
    fs::set_permissions(&config.run_dir, fs::Permissions::from_mode(0o755)).expect("opened");
    config.create_directories().expect("closed");
    for path in [&config.home, &config.run_dir] {
        assert_eq!(fs::metadata(path).expect("exists").mode() & 0o777, 0o700, "{}", path.display());
    }
}

#[test]
fn a_missing_settings_file_is_no_error_and_a_directory_in_its_place_is() {
    let dir = tempfile::tempdir().expect("temporary directory");
    assert_eq!(settings_of(&dir.path().join("none.toml")).expect("defaults"), Settings::default());
    assert!(matches!(settings_of(dir.path()), Err(ConfigError::Io { .. })));
}
