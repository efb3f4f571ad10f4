//! What of the machine builders see: what was typed, else what the installed nix is set to.

use std::ffi::OsString;
use std::path::PathBuf;

use super::engine::Engine;
use super::error::{Error, Kind};
use super::nix_setting;
use super::session::Session;
use super::settings::SandboxPath;
use crate::event::{Event, Sink};
use crate::{eval, tunnel};

/// Decides the sandbox paths; optional ones only if they are there.
pub fn decide(
    session: &Session<'_>,
    sink: &mut dyn Sink,
) -> Result<Vec<tunnel::SandboxPath>, Error> {
    let paths = match &session.how.sandbox_paths {
        Some(paths) => paths.clone(),
        None => of_nix(session, sink),
    };
    let mut present = vec![];
    for path in paths {
        // On a daemon a path of the store is the daemon's, wherever it comes from.
        let is_here = match session.engine {
            Engine::Embedded { .. } => path.source.exists(),
            Engine::BuildKit { .. } => {
                path.source.starts_with("/nix/store") || path.source.exists()
            }
        };
        if !is_here {
            if path.optional {
                continue;
            }
            let text = format!(
                "the sandbox path `{}` does not exist",
                path.source.display()
            );
            return Err(Error::new(Kind::Other, text).hint("with `?` behind it, it may be missing"));
        }
        present.push(tunnel::SandboxPath {
            target: text(path.target)?,
            source: text(path.source)?,
        });
    }
    Ok(present)
}

fn text(path: PathBuf) -> Result<String, Error> {
    let text = path.into_os_string().into_string();
    text.map_err(|path| Error::usage(format!("`{}` is not UTF-8", path.display())))
}

/// The installed nix's setting; none where no nix is.
fn of_nix(session: &Session<'_>, sink: &mut dyn Sink) -> Vec<SandboxPath> {
    let search = session.around.variables.get("PATH");
    let search = search.map(OsString::as_os_str);
    let Some(nix) = eval::nix::on_search_path("nix", search) else {
        return vec![];
    };
    match nix_setting::sandbox_paths(&nix, &session.how.nix_options) {
        Ok(paths) => paths,
        Err(error) => {
            let text = format!("the setting `sandbox-paths` of nix is not used: {error}");
            let hint = Some("say what builders may see with `--sandbox-paths`".to_owned());
            sink.event(&Event::Warning { text, hint });
            vec![]
        }
    }
}
