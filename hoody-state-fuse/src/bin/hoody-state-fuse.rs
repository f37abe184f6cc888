//! temporary
fn main() {
    let a: Vec<String> = std::env::args().collect();
    tracing_subscriber::fmt().init();
    let mut o = hoody_state_fuse::mount::MountOptions::default();
    if let Ok(n) = std::env::var("LOOPS") {
        o.event_loops = n.parse().unwrap();
    }
    if std::env::var("NOPASS").is_ok() {
        o.passthrough = false;
    }
    let m = hoody_state_fuse::mount::Mount::single(a[1].as_ref(), a[2].as_ref(), &o).unwrap();
    println!("mounted, passthrough {}", m.passes_through());
    while m.is_live() {
        std::thread::sleep(std::time::Duration::from_millis(200));
    }
    println!("{:#?}", m.locks().status().1);
}
