//! What commands print: the text for people against files in `tests/golden`, every `--json` document against the JSON
//! Schema in `docs/schema`.
//!
//! `LARDER_UPDATE_GOLDEN=1 cargo test --test output` writes the files anew, to be read before they are committed. A schema is
//! widened by what is printed, never narrowed: what the scenario does not show (a field that can be null) is added by hand.

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use common::repos::{self, commit_all, write};
use common::servers::GitDaemon;
use common::{COMMAND_LIMIT, Fixture, Outcome, git_out, run, text};
use regex::{Captures, Regex};
use serde_json::{Map, Value, json};

/// One thing to print.
struct Case {
    /// Name of its files.
    name: &'static str,
    arguments: Vec<String>,
    code: i32,
    /// Whether facts are printed although the code is another than 0.
    facts: bool,
    /// Whether its text is the same on every machine, once numbers that vary are taken out.
    golden: bool,
    json: bool,
}

fn case(name: &'static str, arguments: &str) -> Case {
    Case {
        name,
        arguments: arguments.split(' ').map(str::to_owned).collect(),
        code: 0,
        facts: true,
        golden: true,
        json: true,
    }
}

impl Case {
    /// Fails with this exit code.
    fn fails(self, code: i32) -> Self {
        Self { code, facts: false, ..self }
    }

    /// Its text tells of the machine, so only its JSON is looked at.
    fn json_only(self) -> Self {
        Self { golden: false, ..self }
    }

    /// What can be done once only, or is done again as JSON in another case.
    fn text_only(self) -> Self {
        Self { json: false, ..self }
    }
}

struct Scene {
    fixture: Fixture,
    mount: PathBuf,
    server: GitDaemon,
    oid: String,
}

impl Scene {
    /// A mount `work` with something of everything: read, warmed, changed, pinned, an older generation.
    fn new() -> Option<Self> {
        let fixture = Fixture::with_settings(
            "[git]\nhistory = \"off\"\n[gc]\ninterval = \"0s\"\n[hydrate]\nprefetch = \"off\"\n",
        )?;
        let source = fixture.path("remote/project");
        repos::small(&source);
        for number in 0..4 {
            write(&source, format!("src/part{number}.rs"), format!("fn part{number}() {{}}\n").repeat(20));
        }
        write(&source, "docs/guide.md", "# Guide\n".repeat(10));
        write(&source, std::ffi::OsStr::new("docs/odd\u{1b}[31m name"), "odd\n");
        commit_all(&source, "first");
        git_out(&source, &["switch", "-q", "-c", "next"]);
        write(&source, "src/part0.rs", "fn other() {}\n");
        commit_all(&source, "second");
        git_out(&source, &["switch", "-q", "main"]);
        repos::advertise_sizes(&source);
        let server = GitDaemon::serve(&fixture.path("remote"));
        let mount = fixture.mount(&server.url("project"), "work");
        let oid = git_out(&source, &["rev-parse", "main:src/part1.rs"]);
        Some(Self { fixture, mount, server, oid })
    }

    fn run(&self, arguments: &[String], json: bool) -> Outcome {
        let mut command = self.fixture.larder();
        command.args(arguments).env("COLUMNS", "100");
        if json {
            command.arg("--json");
        }
        run(command, COMMAND_LIMIT)
    }

    /// The text without what is another on each machine and at each time.
    fn plain(&self, text: &str) -> String {
        let home = self.fixture.path("");
        let text = text.replace(home.to_str().expect("UTF-8").trim_end_matches('/'), "/HERE");
        let text = text.replace(&format!(":{}/", self.server.port()), ":PORT/");
        let with = |text: String, pattern: &str, to: &str| {
            Regex::new(pattern).expect("a pattern").replace_all(&text, to).into_owned()
        };
        let text = with(text, r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", "TIME");
        let text = with(text, r"\b(process|pid) \d+", "$1 PID");
        let disk = r"(?m)^ +[\d.]+ [KM]?i?B +(on the disk|store\.redb|gitdir|local changes|logs|directories)";
        let text = with(text, disk, "  SIZE  $1");
        let text = with(text, r"page\.html: [\d.]+ KiB", "page.html: SIZE");
        let text = with(text, r"\b\d+(\.\d+)? ?(ns|us|ms|s)\b", "SECONDS");
        // Columns are as wide as what varies in them.
        let spaces = Regex::new(r"(?m) {2,}").expect("a pattern");
        spaces.replace_all(&text, |_: &Captures<'_>| "  ").into_owned()
    }
}

fn updating() -> bool {
    std::env::var_os("LARDER_UPDATE_GOLDEN").is_some_and(|value| value == "1")
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn check(scene: &Scene, case: &Case, wrong: &mut Vec<String>) {
    if case.golden {
        let outcome = scene.run(&case.arguments, false);
        let said = if case.facts { outcome.out() } else { outcome.err() };
        if outcome.code != Some(case.code) {
            wrong.push(format!("{} ended with {:?}: {} {}", case.name, outcome.code, outcome.out(), outcome.err()));
        }
        golden(case.name, &scene.plain(&said), wrong);
    }
    if !case.json {
        return;
    }
    let outcome = scene.run(&case.arguments, true);
    if outcome.code != Some(case.code) {
        wrong.push(format!("{} --json ended with {:?}: {}", case.name, outcome.code, outcome.err()));
        return;
    }
    let said = if case.facts { outcome.out() } else { outcome.err() };
    let name = if case.facts { schema_of(case.name) } else { "error" };
    match serde_json::from_str(&said) {
        Ok(document) => schema(name, &document, wrong),
        Err(error) => wrong.push(format!("{name} --json is not one JSON document ({error}): {said}")),
    }
}

/// One schema serves a command, however it is called.
fn schema_of(case: &str) -> &str {
    ["du", "inspect"].into_iter().find(|command| case.starts_with(command)).unwrap_or(case)
}

fn golden(name: &str, said: &str, wrong: &mut Vec<String>) {
    let path = root().join("tests/golden").join(format!("{name}.txt"));
    if updating() {
        fs::write(&path, said).expect("the checkout is writable");
        return;
    }
    let wanted = fs::read_to_string(&path).unwrap_or_default();
    if wanted != said {
        wrong.push(format!("{} is\n{wanted}\nand this was printed:\n{said}", path.display()));
    }
}

fn schema(name: &str, document: &Value, wrong: &mut Vec<String>) {
    let path = root().join("docs/schema").join(format!("{name}.json"));
    let known = fs::read_to_string(&path).ok().map(|text| serde_json::from_str(&text).expect("a schema is JSON"));
    if updating() {
        let mut schema = widened(known.unwrap_or(Value::Null), document);
        let fields = schema.as_object_mut().expect("a schema is an object");
        fields.insert("$schema".to_owned(), json!("https://json-schema.org/draft/2020-12/schema"));
        fields.insert("title".to_owned(), json!(format!("larder {} --json", name.replace('_', " "))));
        let text = serde_json::to_string_pretty(&schema).expect("JSON") + "\n";
        fs::write(&path, text).expect("the checkout is writable");
        return;
    }
    let Some(schema) = known else {
        wrong.push(format!("{} is missing", path.display()));
        return;
    };
    let validator = jsonschema::validator_for(&schema).expect("a schema");
    for error in validator.iter_errors(document) {
        wrong.push(format!("{name}: {error} at {}\nin {document:#}", error.instance_path()));
    }
}

/// The schema that `known` and `value` fit.
fn widened(known: Value, value: &Value) -> Value {
    let mut schema = match known {
        Value::Object(schema) => schema,
        _ => Map::new(),
    };
    let mut types: BTreeSet<String> = match schema.get("type") {
        Some(Value::String(one)) => BTreeSet::from([one.clone()]),
        Some(Value::Array(all)) => all.iter().filter_map(|one| one.as_str().map(str::to_owned)).collect(),
        _ => BTreeSet::new(),
    };
    let is_new = !types.contains("object");
    types.insert(kind(value).to_owned());
    if types.contains("number") {
        types.remove("integer");
    }
    match value {
        Value::Object(fields) => {
            let mut properties = schema.get("properties").and_then(Value::as_object).cloned().unwrap_or_default();
            let required: BTreeSet<String> =
                fields.keys().filter(|name| is_new || is_required(&schema, name)).cloned().collect();
            for (name, value) in fields {
                let known = properties.remove(name).unwrap_or_default();
                properties.insert(name.clone(), widened(known, value));
            }
            schema.insert("properties".to_owned(), Value::Object(properties));
            schema.insert("required".to_owned(), json!(required));
            schema.insert("additionalProperties".to_owned(), json!(false));
        }
        Value::Array(items) if !items.is_empty() => {
            let known = schema.remove("items").unwrap_or_default();
            schema.insert("items".to_owned(), items.iter().fold(known, widened));
        }
        _ => {}
    }
    let types: Vec<String> = types.into_iter().collect();
    schema.insert("type".to_owned(), if types.len() == 1 { json!(types[0]) } else { json!(types) });
    Value::Object(schema)
}

fn is_required(schema: &Map<String, Value>, name: &str) -> bool {
    schema.get("required").and_then(Value::as_array).is_some_and(|all| all.iter().any(|one| one == name))
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

fn cases(scene: &Scene) -> Vec<Case> {
    let (oid, url) = (&scene.oid, scene.server.url("project"));
    vec![
        case("list", "list"),
        case("status", "status work"),
        Case { code: 4, ..case("offline_ready", "status work --offline-ready") },
        case("generations", "generations work"),
        case("pin", "pin work docs").text_only(),
        case("pins", "pins"),
        case("unpin", "unpin 1").text_only(),
        case("pin", "pin work docs").json_only(),
        case("unpin", "unpin --all work").json_only(),
        case("warm", "warm work src"),
        case("waits", "waits"),
        case("history", "history work"),
        case("refresh", "refresh work"),
        case("du", "du"),
        case("du_directory", "du --by directory work"),
        case("du_type", "du --by type work"),
        case("du_age", "du --by age"),
        case("inspect", "inspect work/src/part1.rs"),
        case("inspect_overlay", "inspect work/new.txt"),
        Case { arguments: vec!["inspect".into(), oid.clone()], ..case("inspect_oid", "") },
        case("cache_ls", "cache ls"),
        case("why", "why").text_only(),
        case("why", "why --fetches 5").json_only(),
        case("verify", "verify"),
        case("gc", "gc --dry-run"),
        case("doctor", "doctor").json_only(),
        case("metrics", "metrics").json_only(),
        case("top", "top --once").json_only(),
        case("config_show", "config show").json_only(),
        case("report", "report work -o page.html"),
        case("cache_export", "cache export out.larder work").text_only(),
        case("cache_export", "cache export again.larder work").json_only(),
        case("switch", "switch work next"),
        case("error_target", "status nowhere").fails(3),
        case("error_prefix", "inspect 00000000").fails(3),
        case("error_path", "inspect work/nothing").fails(3),
        case("error_usage", "du --by nothing").fails(2),
        case("error_refused", "mount /nowhere work/src").fails(6),
        case("unmount", "unmount work").text_only(),
        Case { arguments: vec!["mount".into(), url.clone(), "work".into()], ..case("mount", "") }.json_only(),
        case("unmount", "unmount work").json_only(),
        Case { arguments: vec!["mount".into(), url, "work".into()], ..case("mount", "") }.text_only(),
        case("shutdown", "shutdown"),
    ]
}

#[test]
fn text_and_json_are_as_written_down() {
    let Some(scene) = Scene::new() else { return };
    for file in ["src/part1.rs", "docs/guide.md"] {
        let mut cat = Command::new("cat");
        cat.arg(scene.mount.join(file));
        run(cat, COMMAND_LIMIT).success();
    }
    fs::write(scene.mount.join("new.txt"), "mine\n").expect("writable");
    scene.fixture.ok(&["warm", text(&scene.mount), "docs"]);
    let mut wrong = Vec::new();
    for case in cases(&scene) {
        check(&scene, &case, &mut wrong);
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

#[test]
fn every_file_belongs_to_something_printed() {
    let Some(scene) = Scene::new() else { return };
    let cases = cases(&scene);
    let names = |directory: &str| -> BTreeSet<String> {
        let entries = fs::read_dir(root().join(directory)).expect("part of the checkout");
        let stem = |path: &Path| path.file_stem().expect("a file").to_string_lossy().into_owned();
        entries.map(|entry| stem(&entry.expect("readable").path())).collect()
    };
    let golden: BTreeSet<String> = cases.iter().filter(|case| case.golden).map(|case| case.name.to_owned()).collect();
    assert_eq!(names("tests/golden"), golden);
    let mut schemas: BTreeSet<String> =
        cases.iter().filter(|case| case.facts && case.json).map(|case| schema_of(case.name).to_owned()).collect();
    schemas.insert("error".to_owned());
    assert_eq!(names("docs/schema"), schemas);
}

#[test]
fn a_schema_refuses_what_it_does_not_know() {
    let schema = widened(widened(Value::Null, &json!({"a": 1, "b": [null, "x"]})), &json!({"a": 1.5}));
    let fits = |value: &Value| jsonschema::validator_for(&schema).expect("a schema").is_valid(value);
    assert!(fits(&json!({"a": 2, "b": ["y"]})) && fits(&json!({"a": 2.5})));
    for wrong in [json!({"a": "2"}), json!({"b": []}), json!({"a": 1, "c": 1}), json!([]), json!({"a": 1, "b": [1]})] {
        assert!(!fits(&wrong), "{wrong}");
    }
}
