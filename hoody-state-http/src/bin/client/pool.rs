//! `pool …`

use crate::args::Pool;
use crate::context::Context;
use crate::failure::Outcome;
use crate::output::fields;

/// Runs the command.
pub fn run(cx: &mut Context<'_>, command: Pool) -> Outcome {
    match command {
        Pool::Show => {
            let data = cx.client.get("/pool")?;
            cx.print(&data, fields)
        }
    }
}
