//! Operations: changes that are running or have ended.

use super::Routes;
use crate::app::Shared;
use crate::auth::Identity;
use crate::envelope::{Envelope, Reply, ok};
use crate::error_map;
use crate::extract::{Id, Input, Nothing, PageQuery, Query, preferred_wait};
use crate::slots;
use axum::extract::State;
use axum::http::HeaderMap;
use hoody_state::host::Host;
use hoody_state::id::OperationId;
use hoody_state::model::{Operation, Pagination};
use hoody_state::{Code, Error, Result};
use serde::Serialize;
use utoipa_axum::routes;

pub(crate) fn routes() -> Routes {
    Routes::new().routes(routes!(list)).routes(routes!(get, cancel))
}

/// A page of operations.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct OperationPage {
    operations: Vec<Operation>,
    pagination: Pagination,
}

/// Lists operations, newest first.
#[utoipa::path(get, path = "/operations", tag = "operations", operation_id = "list_operations", params(PageQuery), responses((status = 200, description = "A page", body = Envelope<OperationPage>)))]
pub async fn list(State(app): State<Shared>, who: Identity, Query(q): Query<PageQuery>) -> Reply<OperationPage> {
    let page = q.check(50)?;
    let paged = app.read(move |host| host.operations_in(&page, who.only())).await?;
    let operations = paged.rows.into_iter().map(shown).collect();
    ok("Operations", OperationPage { operations, pagination: paged.pagination })
}

/// An operation as clients may see it: the reason of a failed system call is only in the log.
fn shown(mut operation: Operation) -> Operation {
    if let Some(e) = &mut operation.error {
        e.message = error_map::outer_text(&e.code, std::mem::take(&mut e.message));
    }
    operation
}

fn find(host: &Host, who: &Identity, id: &OperationId) -> Result<Operation> {
    let operation = host.operation(id)?;
    if who.sees_operation(host, &operation) {
        return Ok(operation);
    }
    Err(Error::new(Code::OperationNotFound, format!("there is no operation {id}")))
}

/// Shows an operation. With `Prefer: wait=N` the answer waits for its end.
#[utoipa::path(get, path = "/operations/{id}", tag = "operations", operation_id = "get_operation",
    params(("id" = String, Path), ("Prefer" = Option<String>, Header, description = "`wait=N`: wait up to N seconds, at most 25, for the end of the operation")),
    responses((status = 200, description = "The resource", body = Envelope<Operation>)))]
pub async fn get(State(app): State<Shared>, who: Identity, Id(id): Id<OperationId>, headers: HeaderMap) -> Reply<Operation> {
    let operation = match preferred_wait(&headers) {
        None => app.read(move |host| find(host, &who, &id)).await?,
        Some(wait) => {
            let slot = app.counted.waits.take_now(&slots::current(), Code::WaitLimit)?;
            app.in_slot(slot, move |host| {
                find(host, &who, &id)?;
                host.wait_operation(&id, wait)
            })
            .await?
        }
    };
    ok("Operation", shown(operation))
}

/// Cancels an operation: what it did is undone. An operation that has ended does not change.
#[utoipa::path(delete, path = "/operations/{id}", tag = "operations", operation_id = "cancel_operation", params(("id" = String, Path)), responses((status = 200, description = "The operation as it is now", body = Envelope<Operation>)))]
pub async fn cancel(State(app): State<Shared>, who: Identity, Id(id): Id<OperationId>, _: Input<Nothing>) -> Reply<Operation> {
    let operation = app
        .change(move |host| {
            let operation = find(host, &who, &id)?;
            if operation.resource_type == "image" {
                who.check_server()?;
            }
            host.cancel_operation(&id)
        })
        .await?;
    ok("Operation cancelled", shown(operation))
}
