//! `pool …`

use crate::args::{Pool, Wait};
use crate::context::Context;
use crate::failure::Outcome;
use crate::http::{object, segment};
use crate::output::{bytes, fields};
use crate::resolve;
use crate::wait;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};

/// Runs the command.
pub fn run(cx: &mut Context<'_>, command: Pool) -> Outcome {
    match command {
        Pool::Show => {
            let data = cx.client.get("/pool")?;
            cx.print(&data, fields)
        }
        Pool::Dedupe { project, containers, min_size, wait } => {
            let project = project.map(|p| resolve::project(cx, &p)).transpose()?;
            let containers = containers.iter().map(|c| resolve::container(cx, c)).collect::<Outcome<Vec<_>>>()?;
            let body = object([
                ("project_id", project.map(Value::from)),
                ("containers", (!containers.is_empty()).then(|| json!(containers))),
                ("min_size", min_size.map(Value::from)),
            ]);
            dedupe(cx, &body, &wait)
        }
    }
}

fn dedupe(cx: &mut Context<'_>, body: &Value, wait: &Wait) -> Outcome {
    let answer = cx.client.post("/pool/dedupe", body)?;
    if answer["result"].is_object() || wait.no_wait {
        return say(cx, &answer["result"], &answer);
    }
    // indicatif shows nothing if stderr is not a terminal.
    let style = ProgressStyle::with_template("{bar:30} {bytes}/{total_bytes} {bytes_per_sec} {eta}").unwrap_or_else(|_| ProgressStyle::default_bar());
    let bar = ProgressBar::new(0).with_style(style);
    let ended = wait::operation_with(cx, &answer, wait, |op| {
        bar.set_length(op["total"].as_u64().unwrap_or(0));
        bar.set_position(op["done"].as_u64().unwrap_or(0));
    });
    bar.finish_and_clear();
    ended?;
    let last = cx.client.get("/pool/dedupe")?["last"].take();
    let of_this = last["operation_id"] == answer["operation_id"];
    say(cx, if of_this { &last } else { &Value::Null }, &answer)
}

/// Says what was gained; of a run that goes on, or that another has followed already, how to look at it.
fn say(cx: &mut Context<'_>, result: &Value, answer: &Value) -> Outcome {
    if !result.is_object() {
        let id = answer["operation_id"].as_str().unwrap_or_default();
        return cx.say(answer, format!("merging in the background: see `hoody-state operation show {}`", segment(id)));
    }
    let held = result["held_bytes"].as_u64().filter(|n| *n > 0);
    let held = held.map_or_else(String::new, |_| format!("; {} of equal data are held by snapshots or others", bytes(&result["held_bytes"])));
    cx.say(result, format!("gained {}{held}", bytes(&result["gained_bytes"])))
}
