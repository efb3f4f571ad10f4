//! Secrets that ops mount. They are known for as long as their op is.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use prost::bytes::Bytes;
use tonic::{Request, Response, Status};

use super::protocol::moby::buildkit::secrets::v1::secrets_server::Secrets;
use super::protocol::moby::buildkit::secrets::v1::{GetSecretRequest, GetSecretResponse};

/// Secrets by id.
#[derive(Clone, Default)]
pub struct Vault {
    values: Arc<Mutex<BTreeMap<String, Vec<u8>>>>,
}

impl std::fmt::Debug for Vault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Vault(..)")
    }
}

impl Vault {
    /// Adds secrets; ids are unique over all ops of a session.
    pub fn add(&self, values: impl IntoIterator<Item = (String, Vec<u8>)>) {
        self.values().extend(values);
    }

    /// Forgets secrets.
    pub fn forget<'a>(&self, ids: impl IntoIterator<Item = &'a String>) {
        let mut values = self.values();
        for id in ids {
            values.remove(id);
        }
    }

    fn values(&self) -> MutexGuard<'_, BTreeMap<String, Vec<u8>>> {
        self.values.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[tonic::async_trait]
impl Secrets for Vault {
    async fn get_secret(
        &self,
        request: Request<GetSecretRequest>,
    ) -> Result<Response<GetSecretResponse>, Status> {
        let id = &request.get_ref().id;
        match self.values().get(id) {
            Some(value) => Ok(Response::new(GetSecretResponse {
                data: Bytes::copy_from_slice(value),
            })),
            None => Err(Status::not_found(format!("there is no secret `{id}`"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vault_does_not_print_its_secrets() {
        let vault = Vault::default();
        vault.add([("id".to_owned(), b"hush".to_vec())]);
        assert_eq!(format!("{vault:?}"), "Vault(..)");
        vault.forget([&"id".to_owned()]);
        assert!(vault.values().is_empty());
    }
}
