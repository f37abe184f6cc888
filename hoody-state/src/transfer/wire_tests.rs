//! The words of the protocol, letter by letter: a server of another build of this version understands them.

use super::{Answer, Request, StreamRequest};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// The text is read and written back as it is.
fn same<T: Serialize + DeserializeOwned>(text: &str) {
    let value: T = serde_json::from_str(text).unwrap_or_else(|e| panic!("{e}: {text}"));
    assert_eq!(serde_json::to_string(&value).unwrap(), text);
}

#[test]
fn requests_keep_their_words() {
    same::<Request>(r##"{"call":"hello","from":"65f0000000000000000000aa"}"##);
    same::<Request>(
        r##"{"call":"check_copy","copy":"65f0000000000000000000bb","server":"65f0000000000000000000aa","source":"65f0000000000000000000aa","snapshot":"s1","project":"65f0000000000000000000aa","project_alias":["web","#112233"],"name":"a","ssh_public_key":null,"spec":{"color":"#112233","image":"debian/13","ai":false,"autostart":true,"ramdisk":true,"ramdisk_scope":"container","env":{"K":"v"},"comment":null,"source":"65f0000000000000000000aa","origin":"65f0000000000000000000aa","command":["sleep","1"],"cpu":0.5,"memory_mib":64,"disk":1048576,"databases":"project","filesystem":"btrfs","network":"none"},"start":true,"handover":null,"rate_limit":1000}"##,
    );
    same::<Request>(
        r##"{"call":"copy","copy":"65f0000000000000000000bb","server":"65f0000000000000000000aa","source":"65f0000000000000000000aa","snapshot":"s1","project":"65f0000000000000000000aa","project_alias":["web","#112233"],"name":"a","ssh_public_key":null,"spec":{"color":"#112233","image":"debian/13","ai":false,"autostart":true,"ramdisk":true,"ramdisk_scope":"container","env":{"K":"v"},"comment":null,"source":"65f0000000000000000000aa","origin":"65f0000000000000000000aa","command":["sleep","1"],"cpu":0.5,"memory_mib":64,"disk":1048576,"databases":"project","filesystem":"btrfs","network":"none"},"start":true,"handover":null,"rate_limit":1000}"##,
    );
    same::<Request>(
        r##"{"call":"copy","copy":"65f0000000000000000000bb","server":"65f0000000000000000000aa","source":"65f0000000000000000000aa","snapshot":"s1","project":"65f0000000000000000000aa","project_alias":["web","#112233"],"name":"a","ssh_public_key":null,"spec":{"color":"#112233","image":"debian/13","ai":false,"autostart":true,"ramdisk":true,"ramdisk_scope":"container","env":{"K":"v"},"comment":null,"source":"65f0000000000000000000aa","origin":"65f0000000000000000000aa","command":["sleep","1"],"cpu":0.5,"memory_mib":64,"disk":1048576,"databases":"project","filesystem":"btrfs","network":"none"},"start":true,"handover":null,"identity":{"inherited":null,"renewed":[],"removed":[]},"rate_limit":1000}"##,
    );
    same::<Request>(r##"{"call":"inventory","container":"65f0000000000000000000aa","copy":"65f0000000000000000000bb"}"##);
    same::<Request>(
        r##"{"call":"fresh","container":"65f0000000000000000000aa","copy":"65f0000000000000000000bb","have":["00000000-0000-0000-0000-00000000000a"]}"##,
    );
    same::<Request>(r##"{"call":"state","copy":"65f0000000000000000000bb"}"##);
    same::<Request>(r##"{"call":"advance","copy":"65f0000000000000000000bb","snapshot":"s1","handover":"65f0000000000000000000aa65f00000"}"##);
    same::<Request>(
        r##"{"call":"hand_over","copy":"65f0000000000000000000bb","handover":"65f0000000000000000000aa65f00000","start":true,"identity":"00000000-0000-0000-0000-00000000000a"}"##,
    );
    same::<Request>(r##"{"call":"discard","copy":"65f0000000000000000000bb","handover":"65f0000000000000000000aa65f00000"}"##);
}

#[test]
fn answers_keep_their_words() {
    same::<Answer>(r##"{"answer":"hello","server":{"id":"65f0000000000000000000aa","name":"one"},"version":2,"id_base":100000}"##);
    same::<Answer>(r##"{"answer":"inventory","snapshots":[]}"##);
    same::<Answer>(r##"{"answer":"fresh","snapshot":null,"base":"s1","base_identity":"00000000-0000-0000-0000-00000000000a"}"##);
    same::<Answer>(r##"{"answer":"possible"}"##);
}

#[test]
fn requests_of_streams_keep_their_words() {
    same::<StreamRequest>(r##"{"container":"65f0000000000000000000aa","copy":"65f0000000000000000000bb","snapshot":"s1","databases":false,"base":null}"##);
}
