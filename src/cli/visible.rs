//! What of this machine builders see besides their inputs.

use std::ffi::OsString;
use std::path::PathBuf;

use super::error::{Error, Kind};
use super::nix_setting;
use super::session::Session;
use super::settings::SandboxPath;
use crate::event::{Event, Sink};
use crate::{eval, tunnel};

impl Session<'_> {
    /// What was typed, else what the installed nix is set to; optional ones only if they are there.
    pub(super) fn sandbox_paths(
        &self,
        sink: &mut dyn Sink,
    ) -> Result<Vec<tunnel::SandboxPath>, Error> {
        let paths = match &self.how.sandbox_paths {
            Some(paths) => paths.clone(),
            None => self.nix_sandbox_paths(sink),
        };
        let mut present = vec![];
        for SandboxPath {
            target,
            source,
            optional,
        } in paths
        {
            // A path of the store is the daemon's there, wherever it comes from.
            let is_there =
                source.exists() || (!self.engine.is_here() && source.starts_with("/nix/store"));
            if !is_there {
                if optional {
                    continue;
                }
                let text = format!("the sandbox path `{}` does not exist", source.display());
                return Err(
                    Error::new(Kind::Other, text).hint("with `?` behind it, it may be missing")
                );
            }
            let text = |path: PathBuf| {
                path.into_os_string()
                    .into_string()
                    .map_err(|path| Error::usage(format!("`{}` is not UTF-8", path.display())))
            };
            present.push(tunnel::SandboxPath {
                target: text(target)?,
                source: text(source)?,
            });
        }
        Ok(present)
    }

    /// The installed nix's setting; none where no nix is.
    fn nix_sandbox_paths(&self, sink: &mut dyn Sink) -> Vec<SandboxPath> {
        let search = self.around.variables.get("PATH").map(OsString::as_os_str);
        let Some(nix) = eval::nix::on_search_path("nix", search) else {
            return vec![];
        };
        match nix_setting::sandbox_paths(&nix, &self.how.nix_options) {
            Ok(paths) => paths,
            Err(error) => {
                let text = format!("the setting `sandbox-paths` of nix is not used: {error}");
                let hint = Some("say what builders may see with `--sandbox-paths`".to_owned());
                sink.event(&Event::Warning { text, hint });
                vec![]
            }
        }
    }
}
