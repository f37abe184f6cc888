//! Uploads: a body that a blocking call reads while it arrives.

use crate::app::App;
use crate::envelope::ApiError;
use crate::serve::Stalled;
use crate::slots::Slot;
use axum::body::{Body, BodyDataStream};
use bytes::{Buf, Bytes};
use futures_util::StreamExt;
use hoody_state::host::Host;
use hoody_state::{Code, Error, Result};
use std::io::{self, Read};
use tokio::sync::mpsc;

/// How many pieces of an upload can wait to be taken.
const PIECES: usize = 8;

/// Runs `call` with a reader of `body`. If the call ends before the body does, the rest of the body is not read.
///
/// # Errors
/// Those of the call; `request_timeout` with the message `slow` if the body came too slowly.
pub(super) async fn receive<T: Send + 'static>(
    app: &App,
    slot: Slot,
    body: Body,
    slow: &'static str,
    call: impl FnOnce(&Host, &mut dyn Read) -> Result<T> + Send + 'static,
) -> Result<T, ApiError> {
    let (sender, receiver) = mpsc::channel(PIECES);
    let work = app.in_slot(slot, move |host| call(host, &mut Upload { receiver, piece: Bytes::new(), complete: false }));
    tokio::pin!(work);
    tokio::select! {
        ended = &mut work => ended,
        stalled = pump(body.into_data_stream(), sender) => match work.await {
            Err(_) if stalled => Err(Error::new(Code::RequestTimeout, slow).into()),
            ended => ended,
        },
    }
}
enum Piece {
    Data(Bytes),
    Broken(String),
    End,
}

/// Passes the body to the reader. Returns whether it was cut because it came too slowly. If the client disconnects, this is dropped, and the reader gets
/// an error.
async fn pump(mut body: BodyDataStream, sender: mpsc::Sender<Piece>) -> bool {
    loop {
        let mut stalled = false;
        let piece = match body.next().await {
            Some(Ok(data)) => Piece::Data(data),
            Some(Err(e)) => {
                stalled = Stalled::is_behind(&e);
                Piece::Broken(e.to_string())
            }
            None => Piece::End,
        };
        let last = !matches!(piece, Piece::Data(_));
        if sender.send(piece).await.is_err() || last {
            return stalled;
        }
    }
}

/// The reader for the thread of the call.
struct Upload {
    receiver: mpsc::Receiver<Piece>,
    piece: Bytes,
    complete: bool,
}

impl Read for Upload {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        while self.piece.is_empty() && !self.complete {
            match self.receiver.blocking_recv() {
                Some(Piece::Data(data)) => self.piece = data,
                Some(Piece::End) => self.complete = true,
                Some(Piece::Broken(why)) => return Err(io::Error::new(io::ErrorKind::UnexpectedEof, format!("the upload broke off: {why}"))),
                None => return Err(io::Error::new(io::ErrorKind::ConnectionAborted, "the client went away")),
            }
        }
        let n = buf.len().min(self.piece.len());
        self.piece.copy_to_slice(&mut buf[..n]);
        Ok(n)
    }
}
