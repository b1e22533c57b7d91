//! Libraries that are not a usable NIXL: each is a typed error, never an abort. Small stand-ins are made by the C++
//! compiler that nixl-sys needs anyway; NIXL itself is not loaded here.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::Command;

use nixl_connect::{Library, LibraryError, UCX_PLUGIN_FILE};

type Outcome = Result<(), Box<dyn Error>>;

struct Place(tempfile::TempDir);

impl Place {
    /// With a plugin directory that passes, so that the library itself is looked at.
    fn new() -> Result<Self, Box<dyn Error>> {
        let place = tempfile::Builder::new().prefix("nixl-connect-").tempdir()?;
        std::fs::write(place.path().join(UCX_PLUGIN_FILE), "")?;
        Ok(Self(place))
    }

    fn library(&self, source: &str) -> Result<PathBuf, Box<dyn Error>> {
        let (code, library) = (self.0.path().join("stand-in.cpp"), self.0.path().join("libnixl_capi.so"));
        std::fs::write(&code, source)?;
        let built = Command::new("g++")
            .args(["-shared", "-fPIC", "-Wl,-soname,libnixl_capi.so", "-o"])
            .args([&library, &code])
            .status()?;
        if built.success() { Ok(library) } else { Err("g++ could not build the stand-in".into()) }
    }

    /// `NIXL_PLUGIN_DIR` cannot be changed soundly inside a test process, so a child with the right one loads.
    fn load(&self, library: &Path) -> Result<String, Box<dyn Error>> {
        let output = Command::new(std::env::current_exe()?)
            .args(["--exact", "load", "--ignored", "--nocapture"])
            .env("LIBRARY", library)
            .env("NIXL_PLUGIN_DIR", self.0.path())
            .output()?;
        let said = String::from_utf8(output.stdout)?;
        let line = said.lines().find_map(|line| line.split_once("@@"));
        Ok(line.ok_or_else(|| format!("ended with {}: {said}", output.status))?.1.to_owned())
    }
}

#[test]
#[ignore = "a role for the processes that the other tests start"]
fn load() {
    let value = |name: &str| std::env::var_os(name).map(PathBuf::from).unwrap_or_default();
    match Library::load(&value("LIBRARY"), &value("NIXL_PLUGIN_DIR")) {
        Ok(_) => println!("@@loaded"),
        Err(error) => println!("@@{error}"),
    }
}

#[test]
fn a_missing_library_is_named() -> Outcome {
    let place = Place::new()?;
    let said = place.load(&place.0.path().join("nowhere.so"))?;
    assert!(said.starts_with("no NIXL library at ") && said.contains("nowhere.so"), "{said}");
    Ok(())
}

#[test]
fn a_file_that_is_no_library_is_named() -> Outcome {
    let place = Place::new()?;
    let file = place.0.path().join("text.so");
    std::fs::write(&file, "not a library")?;
    let said = place.load(&file)?;
    assert!(said.contains("text.so cannot be loaded: "), "{said}");
    Ok(())
}

#[test]
fn another_library_is_not_taken_for_nixl() -> Outcome {
    let place = Place::new()?;
    let said = place.load(&place.library("extern \"C\" int something_else() { return 0; }")?)?;
    assert!(said.contains("is not NIXL's C API"), "{said}");
    Ok(())
}

#[test]
fn nixl_before_1_5_is_refused() -> Outcome {
    let place = Place::new()?;
    let said = place.load(&place.library("extern \"C\" int nixl_capi_create_agent() { return -1; }")?)?;
    assert!(said.contains("is NIXL older than 1.5: it has no nixl_capi_prep_mem_view_remote"), "{said}");
    Ok(())
}

#[test]
fn the_plugin_directory_must_hold_ucx_and_be_the_one_in_the_environment() -> Outcome {
    let place = Place::new()?;
    let library = place.library("")?;
    let empty = tempfile::tempdir()?;
    assert!(matches!(Library::load(&library, empty.path()), Err(LibraryError::NoUcxPlugin { .. })));
    // No test runs with NIXL_PLUGIN_DIR set to a directory that was made just now.
    assert!(matches!(Library::load(&library, place.0.path()), Err(LibraryError::PluginDirectory { .. })));
    Ok(())
}
