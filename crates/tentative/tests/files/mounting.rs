//! Mounting: the whole tree is covered, and nothing that is written inside reaches the outside.

use std::fs;

use crate::inside::{Place, run};

#[test]
fn what_is_written_inside_stays_inside() {
    let place = Place::new();
    fs::write(place.ground.join("old"), "old").unwrap();
    let (transaction, plan) = place.begin();
    assert!(plan.is_untouched().unwrap());
    let output =
        run(&transaction, &place.ground, "cat old && echo new > new && echo changed > old && cat new old");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "oldnew\nchanged\n", "{output:?}");
    assert_eq!(fs::read_to_string(place.ground.join("old")).unwrap(), "old");
    assert!(!place.ground.join("new").exists());
    assert!(!plan.is_untouched().unwrap());
    transaction.discard().unwrap();
    assert_eq!(place.store.list().unwrap(), []);
}

#[test]
fn temporary_directories_take_files() {
    let place = Place::new();
    // Names that nobody else has taken, whose files could not be touched there.
    let (transaction, _) =
        place.after("for at in /tmp /var/tmp /dev/shm; do : > \"$(mktemp -u -p $at)\" || exit 1; done");
    transaction.discard().unwrap();
}
