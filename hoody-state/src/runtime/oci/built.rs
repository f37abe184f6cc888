use crate::error::{Error, Result};
use oci_spec::OciSpecError;

/// The result of a builder of `oci-spec`. It fails only when a required field was left out.
pub(super) fn built<T>(result: Result<T, OciSpecError>) -> Result<T> {
    result.map_err(|e| Error::internal(format!("the configuration of the OCI runtime is incomplete: {e}")))
}
