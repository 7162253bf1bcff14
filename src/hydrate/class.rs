//! Which class a file's prefetch has, by its name and size.
//!
//! Owns the built-in table; the user's patterns come before it. Refuses
//! patterns that are no globs. Invariants: only what a tree says about a file
//! is looked at, never its contents; every name has a class between
//! [`Class::Manifest`] and [`Class::Last`]; the built-in table ignores case,
//! and asking it allocates nothing, because whole listings are asked about.

use std::collections::HashMap;
use std::sync::LazyLock;

use globset::{Candidate, GlobSet};

use super::queue::Class;
use crate::config::pattern;

/// A file known to be larger is not what a tool opens first, and would keep many small ones waiting.
const LARGE_BYTES: u64 = 1 << 20;

/// No name, stem or extension in the table is longer.
const KEY_BYTES: usize = 32;

/// Whole names that say what the project is and how it is built.
const MANIFEST_NAMES: &str = "
    .bazelrc .bazelversion .clang-format .clang-tidy .dockerignore .editorconfig .eslintrc .gitattributes .gitignore
    .gitmodules .mailmap .npmrc .nvmrc .pre-commit-config.yaml .prettierrc .python-version .ruby-version .rustfmt.toml
    .tool-versions androidmanifest.xml ant.xml bower.json buck build build.gn build.gradle build.gradle.kts build.sbt
    build.xml build.zig build.zig.zon bun.lockb cabal.project cargo.toml clippy.toml cmakelists.txt cmakepresets.json
    codeowners compose.yaml compose.yml composer.json conanfile.py conanfile.txt configure.ac configure.in default.nix
    deno.json directory.build.props directory.build.targets directory.packages.props docker-compose.yaml
    docker-compose.yml dub.json dune dune-project earthfile environment.yml flake.nix global.json go.mod go.sum
    go.work go.work.sum gradle.properties gradlew jenkinsfile justfile kbuild kconfig lerna.json maintainers
    makefile.pl manifest.in meson.build meson.options meson_options.txt mix.exs module.bazel npm-shrinkwrap.json
    nuget.config nx.json owners package-lock.json package.json package.swift package.yaml packages.config
    packages.lock.json pipfile platformio.ini pnpm-lock.yaml pnpm-workspace.yaml podfile pom.xml project.clj
    project.godot project.json pubspec.yaml pyproject.toml rakefile rebar.config rust-project.json rust-toolchain
    rust-toolchain.toml rustfmt.toml sconscript sconstruct settings.gradle settings.gradle.kts setup.cfg setup.py
    shell.nix stack.yaml taskfile.yml tox.ini turbo.json uv.toml vagrantfile vcpkg.json vite.config.js vite.config.ts
    webpack.config.js workspace workspace.bazel wscript xmake.lua";

/// What the name begins with, up to its first `.`, `-` or `_`: `README.md`, `LICENSE-MIT`, `requirements-dev.txt`.
/// Source code and binaries of such a name are what they are.
const MANIFEST_STEMS: &str = "
    authors brewfile build changelog changes containerfile contributing copying copyright dockerfile gemfile
    gnumakefile install jsconfig kbuild kconfig licence license makefile news notice patents readme requirements
    security tsconfig workspace";

/// Extensions of build and lock files.
const MANIFEST_EXTENSIONS: &str = "
    bazel bzl cabal cmake csproj fsproj gemspec gn gni gradle gyp gypi lock mk nimble nuspec opam podspec props
    rockspec sbt sln slnx vbproj vcxproj";

/// Extensions of what people write and compilers, interpreters and search tools read.
const SOURCE_EXTENSIONS: &str = "
    ada adb ads agda applescript as asm astro awk bash bat bib bicep c c++ cc cj cjs cl clj cljc cljs cmd coffee cpp
    cr cs csh cshtml css cts cu cuh cxx d dart dts dtsi dtso e el elm erb erl ex exs f f03 f08 f77 f90 f95 fish for
    frag fs fsi fsx gd gleam glsl go graphql groovy h h++ haml hbs hcl hh hlsl hpp hrl hs htm html hx hxx idl idr inc
    inl ipp ispc java jl js jsx kt kts l lagda ld lds less lhs lisp ll lsp lua m m4 mako metal mjs ml mli mll mly mm
    move mts nasm nim nix nu odin pas php phtml pig pl pm pod pp prisma pro proto ps1 psm1 purs pxd pxi py pyi pyw pyx
    qml r rake rb re rei rkt rmd robot rs s sass scala scm scss sed sh slim sml sol spec sql star sv svelte svh swift
    t tcl td tex tf tfvars thrift tla tpl ts tsx twig v vala vapi vb vert vhd vhdl vim vue wat wgsl wit x xsl xslt y
    yy zig zsh";

/// Extensions of what is large, made by a program or unreadable to people.
const LAST_EXTENSIONS: &str = "
    7z a aab aac aar ai aiff apk app ar arrow asar avi avif avro bc bin blend bmp br bson bz2 cab cbor ckpt class com
    crate crx cur dat db dds deb dex dib dll dmg doc docx dylib ear egg eot eps exe exr fbx fig flac flv ggml gguf gif
    glb gltf gpkg gz h5 hdf5 hdr heic heif hex icns ico idx img ipa iso jar jks jp2 jpeg jpg jxl keystore ko lib lockb
    lz lz4 lzma lzo m4a m4v map mat mbtiles mdb mid mkv mo mobi mov mp3 mp4 mpeg mpg msgpack msi nib npy npz o obj odp
    ods odt ogg ogv onnx opus orc otc otf out p12 pack pak parquet pb pbm pcap pcapng pcx pdb pdf pfb pfx pgm pickle
    pkg pkl plist ply pmtiles png ppm ppt pptx psd pt pth pyc pyd pyo qcow2 rar rdb rlib rmeta rpm safetensors sav shp
    sketch snap so sqlite sqlite3 squashfs stl swf sys tar tbz tbz2 tflite tga tgz tif tiff ttc ttf txz tzst uasset
    umap unitypackage usdz vdi vhdx vmdk vsix wad war wasm wav weba webm webp whl wma wmv woff woff2 xcf xls xlsb xlsx
    xpi xz z zip zst";

type Table = HashMap<&'static [u8], Class>;

static NAMES: LazyLock<Table> = LazyLock::new(|| table(&[(MANIFEST_NAMES, Class::Manifest)]));
static STEMS: LazyLock<Table> = LazyLock::new(|| table(&[(MANIFEST_STEMS, Class::Manifest)]));
static EXTENSIONS: LazyLock<Table> = LazyLock::new(|| {
    table(&[(MANIFEST_EXTENSIONS, Class::Manifest), (SOURCE_EXTENSIONS, Class::Source), (LAST_EXTENSIONS, Class::Last)])
});

fn table(lists: &[(&'static str, Class)]) -> Table {
    let words = |(list, class): &(&'static str, Class)| {
        let class = *class;
        list.split_ascii_whitespace().map(move |word| (word.as_bytes(), class))
    };
    lists.iter().flat_map(words).collect()
}

/// Decides in which order a directory's files are prefetched.
#[derive(Clone, Debug, Default)]
pub struct ClassTable {
    /// The user's, in the order they are asked; lists without patterns are left out.
    user: Vec<(GlobSet, Class)>,
}

impl ClassTable {
    /// A table that asks the user's patterns first, in the order of the arguments, and then the built-in one.
    pub fn new(manifests: &[String], sources: &[String], texts: &[String], last: &[String]) -> Result<Self, String> {
        let lists = [
            ("manifests", manifests, Class::Manifest),
            ("sources", sources, Class::Source),
            ("texts", texts, Class::Text),
            ("last", last, Class::Last),
        ];
        let mut user = Vec::new();
        for (name, patterns, class) in lists.into_iter().filter(|(_, patterns, _)| !patterns.is_empty()) {
            let set = pattern::set(patterns).map_err(|error| format!("{name} {error}"))?;
            user.push((set, class));
        }
        Ok(Self { user })
    }

    /// The class of a file called `name`, which has `size` raw bytes if that is known.
    pub fn class(&self, name: &[u8], size: Option<u64>) -> Class {
        if !self.user.is_empty() {
            let candidate = Candidate::from_bytes(name);
            if let Some((_, class)) = self.user.iter().find(|(set, _)| set.is_match_candidate(&candidate)) {
                return *class;
            }
        }
        if size.is_some_and(|size| size > LARGE_BYTES) { Class::Last } else { built_in(name) }
    }
}

fn built_in(name: &[u8]) -> Class {
    if let Some(class) = known(&NAMES, name) {
        return class;
    }
    // A name that begins with its only dot has no extension.
    let extension = match name.iter().rposition(|byte| *byte == b'.') {
        Some(dot) if dot > 0 => known(&EXTENSIONS, &name[dot + 1..]),
        _ => None,
    };
    let stem = || {
        let end = name.iter().position(|byte| matches!(byte, b'.' | b'-' | b'_')).unwrap_or(name.len());
        known(&STEMS, &name[..end])
    };
    extension.or_else(stem).unwrap_or(Class::Text)
}

fn known(table: &Table, key: &[u8]) -> Option<Class> {
    let mut lower = [0; KEY_BYTES];
    let lower = lower.get_mut(..key.len())?;
    lower.copy_from_slice(key);
    lower.make_ascii_lowercase();
    table.get(&*lower).copied()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn class(name: &str) -> Class {
        ClassTable::default().class(name.as_bytes(), None)
    }

    fn list(patterns: &[&str]) -> Vec<String> {
        patterns.iter().map(|pattern| (*pattern).to_owned()).collect()
    }

    #[test]
    fn what_describes_a_project_comes_first() {
        for name in [
            "README",
            "README.md",
            "readme.ja.rst",
            "LICENSE-MIT",
            "Cargo.toml",
            "Cargo.lock",
            "package-lock.json",
            "yarn.lock",
            "requirements-dev.txt",
            "Makefile",
            "Makefile.am",
            "Kconfig",
            "Kconfig.debug",
            "CMakeLists.txt",
            "FindZlib.cmake",
            "BUILD",
            "BUILD.bazel",
            "MODULE.bazel",
            "pom.xml",
            "build.gradle.kts",
            "Gemfile.lock",
            "flake.nix",
            ".gitignore",
            ".editorconfig",
            "tsconfig.base.json",
            "Dockerfile.dev",
            "pnpm-workspace.yaml",
        ] {
            assert_eq!(class(name), Class::Manifest, "{name}");
        }
    }

    #[test]
    fn source_text_and_the_rest_follow() {
        for name in ["main.rs", "MAIN.C", "a.tar.py", "license_check.py", "x.d.ts", "setup.sh", "entry.S", ".x.go"] {
            assert_eq!(class(name), Class::Source, "{name}");
        }
        for name in ["notes.txt", "data.json", ".bashrc", ".rs", "x.", "TODO", "readmes", "", ".", "a b", "x.y.z1"] {
            assert_eq!(class(name), Class::Text, "{name}");
        }
        for name in ["logo.PNG", "readme.png", "a.tar.gz", "libx.so", "m.safetensors", "f.woff2", "paper.pdf", "a.o"] {
            assert_eq!(class(name), Class::Last, "{name}");
        }
        let table = ClassTable::default();
        assert_eq!(table.class(b"\xff\xfe.rs", None), Class::Source);
        assert_eq!(table.class(&[b'x'; 300], None), Class::Text);
        assert_eq!(table.class(&[&[b'x'; 300][..], b".rs"].concat(), None), Class::Source);
    }

    #[test]
    fn what_is_known_to_be_large_comes_last() {
        let table = ClassTable::default();
        assert_eq!(table.class(b"Cargo.lock", Some(LARGE_BYTES)), Class::Manifest);
        assert_eq!(table.class(b"Cargo.lock", Some(LARGE_BYTES + 1)), Class::Last);
        assert_eq!(table.class(b"x.rs", Some(u64::MAX)), Class::Last);
    }

    #[test]
    fn the_user_is_asked_first_and_in_order() {
        let manifests = list(&["*.star", "both"]);
        let (sources, texts, last) = (list(&["both", "*.png", "x[0-9]"]), list(&["*.rs"]), list(&["*.md", "*.bin"]));
        let table = ClassTable::new(&manifests, &sources, &texts, &last).expect("globs");
        for (name, expected) in [
            ("a.star", Class::Manifest),
            ("both", Class::Manifest),
            ("logo.png", Class::Source),
            ("logo.PNG", Class::Last),
            ("x7", Class::Source),
            ("main.rs", Class::Text),
            ("README.md", Class::Last),
            ("Cargo.toml", Class::Manifest),
        ] {
            assert_eq!(table.class(name.as_bytes(), None), expected, "{name}");
        }
        assert_eq!(table.class(b"a.star", Some(1 << 30)), Class::Manifest);
        assert_eq!(table.class(b"\xff.star", None), Class::Manifest);
        let error = ClassTable::new(&[], &list(&["a["]), &[], &[]).expect_err("no glob");
        assert!(error.starts_with("sources has the pattern \"a[\""), "{error}");
    }

    #[test]
    fn the_built_in_table_is_lower_case_reachable_and_without_contradictions() {
        let mut seen = HashSet::new();
        for list in [MANIFEST_EXTENSIONS, SOURCE_EXTENSIONS, LAST_EXTENSIONS] {
            for word in list.split_ascii_whitespace() {
                assert!(seen.insert(word), "{word} is there twice");
                assert!(!word.contains('.'), "{word} is not what follows the last dot");
            }
        }
        for list in [MANIFEST_NAMES, MANIFEST_STEMS, MANIFEST_EXTENSIONS, SOURCE_EXTENSIONS, LAST_EXTENSIONS] {
            for word in list.split_ascii_whitespace() {
                assert!(word.len() <= KEY_BYTES && !word.bytes().any(|byte| byte.is_ascii_uppercase()), "{word}");
            }
        }
    }
}
