//! The demo: what `make demo` shows, as root and as an ordinary user, with the executable under
//! test. The script checks what it shows.

use super::support::{Place, run};

#[test]
fn the_demo_shows_what_it_says() {
    let place = Place::new();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/demo.sh");
    let mut demo = place.command(script);
    demo.arg(env!("CARGO_BIN_EXE_pontoon"))
        .arg(place.at("demo"));
    let ran = run(&mut demo).ok();
    for user in ["root", "pontoon-demo"] {
        let result = format!("as {user}: 6 outputs built once, 2 publications");
        assert!(ran.stdout.contains(&result), "{}", ran.report());
    }
    assert!(
        ran.stdout.contains("Hello, pontoon-demo!"),
        "{}",
        ran.report()
    );
}
