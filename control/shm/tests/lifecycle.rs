//! A segment file from creation to its end, and all the ways in which it can be refused.
#![cfg(not(loom))]

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use ipop_shm::*;
use proptest::prelude::*;

const WORDS: u32 = 7;

/// A directory of its own, which goes away with it.
struct Scratch(PathBuf);

impl Scratch {
    fn on(base: &Path) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let dir = base.join(format!("ipop-shm-{}-{number}", std::process::id()));
        fs::create_dir_all(&dir).expect("a scratch directory");
        Self(dir)
    }

    /// On an ordinary file system.
    fn new() -> Self {
        Self::on(Path::new(env!("CARGO_TARGET_TMPDIR")))
    }

    fn segment(&self) -> PathBuf {
        self.0.join("segment")
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn layout() -> Layout {
    Layout::new(WORDS, 2, 5)
}

fn overwrite(path: &Path, word: u64, value: u64) {
    let file = OpenOptions::new().write(true).open(path).expect("the segment");
    file.write_all_at(&value.to_le_bytes(), word * 8).expect("a word of the segment");
}

fn both_ends_meet(path: &Path) {
    let mut datapath = create(path, &layout()).expect("a new segment");
    let mut controller = attach(path, WORDS).expect("a controller");
    let observer = observe(path, WORDS).expect("an observer");
    assert_eq!((datapath.generation, controller.generation, observer.generation), (1, 1, 1));

    controller.commands.push(b"command").expect("room");
    datapath.events.push(b"event").expect("room");
    assert_eq!(observer.commands().used, 16);
    assert_eq!(datapath.commands.pop(), Ok(Some(&b"command"[..])));
    assert_eq!(controller.events.pop(), Ok(Some(&b"event"[..])));

    // The sleeper and the waker have mapped the file at different addresses.
    let asleep = Instant::now();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(Duration::from_millis(20));
            datapath.events.push(b"wake up").expect("room");
        });
        assert_eq!(controller.events.wait(Duration::from_secs(20)), Wake::Published);
    });
    assert!(asleep.elapsed() < Duration::from_secs(10), "woken by the timeout");

    let mut observer = observer;
    datapath.journal.append(b"it began");
    assert_eq!(observer.journal.next(&mut [0; 176]), Some(&b"it began"[..]));
    datapath.links.write(1023, &[9; 768]).expect("the last row");
    for links in [&controller.links, &observer.links] {
        assert_eq!(links.read(1023, &mut [0; 768]), Ok(Some(&[9; 768][..])));
        assert_eq!(links.read(0, &mut [0; 768]), Ok(None));
    }
    datapath.counters[0].add(4, 2);
    datapath.counters[1].add(4, 40);
    assert_eq!(controller.counters.totals(), [0, 0, 0, 0, 42]);
    assert_eq!(observer.counters.worker(1), [0, 0, 0, 0, 40]);
    assert_eq!(observer.counters.worker(2), [0; 0]);

    datapath.errors.observe(5, "tap is gone");
    controller.errors.observe(6, "wrong password");
    assert_eq!(observer.datapath_errors.entries()[0].text, "tap is gone");
    assert_eq!(observer.controller_errors.entries()[0].text, "wrong password");
    datapath.note.write(0, b"node").expect("the note");
    controller.note.write(0, b"member").expect("the note");
    assert_eq!(observer.datapath_note.read(0, &mut [0; 4096]), Ok(Some(&b"node"[..])));
    assert_eq!(observer.controller_note.read(0, &mut [0; 4096]), Ok(Some(&b"member"[..])));

    datapath.holder.beat(11);
    controller.holder.beat(12);
    let pid = std::process::id();
    let presence = |heartbeat_ms| Presence { alive: true, pid, epoch: 1, heartbeat_ms };
    assert_eq!(controller.datapath.presence().expect("locks"), presence(11));
    assert_eq!(datapath.controller.presence().expect("locks"), presence(12));
    drop((datapath, controller));
    assert!(!observer.datapath.presence().expect("locks").alive);
    assert!(!observer.controller.presence().expect("locks").alive);
    assert_eq!(observer.counters.totals()[4], 42, "readable when all are dead");
}

#[test]
fn both_ends_meet_on_an_ordinary_file_system() {
    both_ends_meet(&Scratch::new().segment());
}

#[test]
fn both_ends_meet_on_tmpfs() {
    both_ends_meet(&Scratch::on(Path::new("/dev/shm")).segment());
}

#[test]
fn the_file_is_the_owners_alone_and_nothing_lies_beside_it() {
    let scratch = Scratch::new();
    let _datapath = create(&scratch.segment(), &layout()).expect("a new segment");
    let meta = fs::metadata(scratch.segment()).expect("the segment");
    assert_eq!((meta.mode() & 0o777, meta.nlink()), (0o600, 1));
    assert_eq!(fs::read_dir(&scratch.0).expect("the directory").count(), 1);
}

#[test]
fn each_role_is_held_once() {
    let scratch = Scratch::new();
    let path = scratch.segment();
    let datapath = create(&path, &layout()).expect("a new segment");
    let own_pid = u64::from(std::process::id());
    match create(&path, &layout()) {
        Err(CreateError::DatapathLives { pid, .. }) => assert_eq!(pid, own_pid),
        other => panic!("{:?}", other.err()),
    }
    let controller = attach(&path, WORDS).expect("a controller");
    match attach(&path, WORDS) {
        Err(AttachError::ControllerLives { pid, .. }) => assert_eq!(pid, own_pid),
        other => panic!("{:?}", other.err()),
    }
    // One part of an end holds the role as well as all of them.
    let links = controller.links.clone();
    drop(controller);
    assert!(matches!(attach(&path, WORDS), Err(AttachError::ControllerLives { .. })));
    assert!(datapath.controller.presence().expect("locks").alive);
    drop(links);
    assert!(!datapath.controller.presence().expect("locks").alive);
    assert_eq!(attach(&path, WORDS).expect("the next controller").holder.epoch(), 2);
}

#[test]
fn a_new_datapath_makes_a_new_segment() {
    let scratch = Scratch::new();
    let path = scratch.segment();
    let first = create(&path, &layout()).expect("a new segment");
    first.counters[0].add(0, 1);
    let mut orphan = attach(&path, WORDS).expect("a controller");
    drop(first);
    assert!(!orphan.datapath.presence().expect("locks").alive);
    match observe(&path, WORDS).map(|observer| observer.generation) {
        Ok(generation) => assert_eq!(generation, 1),
        Err(error) => panic!("{error}"),
    }
    let gone = create(&scratch.0.join("other"), &layout()).map(drop);
    gone.expect("a segment at another path");
    assert!(matches!(
        attach(&scratch.0.join("other"), WORDS),
        Err(AttachError::DatapathGone { .. })
    ));

    let mut second = create(&path, &layout()).expect("the segment after it");
    assert_eq!(second.generation, 2);
    let controller = attach(&path, WORDS).expect("a controller of the new one");
    assert_eq!(controller.counters.totals()[0], 0);
    // The orphan's writes reach nobody.
    orphan.commands.push(b"too late").expect("room");
    assert_eq!(second.commands.pop(), Ok(None));
    assert!(!orphan.datapath.presence().expect("locks").alive);
}

#[test]
fn what_is_no_segment_is_refused_and_left_alone() {
    let scratch = Scratch::new();
    let path = scratch.segment();
    assert!(matches!(observe(&path, WORDS), Err(OpenError::NotFound { .. })));
    let missing = attach(&path, WORDS).map(drop);
    assert!(matches!(missing, Err(AttachError::Open(OpenError::NotFound { .. }))));

    fs::write(&path, "somebody's letter").expect("a file");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("its mode");
    assert!(matches!(observe(&path, WORDS), Err(OpenError::NotASegment { .. })));
    let create_error = create(&path, &layout()).map(drop);
    assert!(matches!(create_error, Err(CreateError::Existing(OpenError::NotASegment { .. }))));
    assert_eq!(fs::read(&path).expect("the file"), b"somebody's letter");

    let link = scratch.0.join("link");
    symlink(&path, &link).expect("a link");
    assert!(matches!(observe(&link, WORDS), Err(OpenError::Io { .. })));
    assert!(matches!(create(&link, &layout()), Err(CreateError::Existing(OpenError::Io { .. }))));
    assert!(matches!(observe(&scratch.0, WORDS), Err(OpenError::NotASegment { .. })));
    assert!(matches!(
        create(&scratch.0.join("no/such/directory"), &layout()),
        Err(CreateError::Existing(OpenError::Io { .. }))
    ));
}

#[test]
fn versions_have_to_match() {
    let scratch = Scratch::new();
    let path = scratch.segment();
    let _datapath = create(&path, &layout()).expect("a new segment");
    match attach(&path, WORDS + 1) {
        Err(AttachError::Open(OpenError::Words { found, ours, .. })) => {
            assert_eq!((found, ours), (WORDS, WORDS + 1));
        }
        other => panic!("{:?}", other.err()),
    }
    assert!(matches!(observe(&path, WORDS + 1), Err(OpenError::Words { .. })));
    overwrite(&path, 1, 2 << 16 | 5);
    assert!(observe(&path, WORDS).is_ok(), "a later minor version of the same major");
    overwrite(&path, 1, 9 << 16);
    match observe(&path, WORDS) {
        Err(OpenError::Version { found_major, .. }) => assert_eq!(found_major, 9),
        other => panic!("{:?}", other.err()),
    }
    overwrite(&path, 1, 0);
    assert!(matches!(observe(&path, WORDS), Err(OpenError::NotReady { .. })));
}

#[test]
fn a_truncated_file_is_refused_and_replaced() {
    let scratch = Scratch::new();
    let path = scratch.segment();
    drop(create(&path, &layout()).expect("a new segment"));
    let file = OpenOptions::new().write(true).open(&path).expect("the segment");
    let whole = file.metadata().expect("its length").len();
    for cut in [whole - 1, whole / 2, 4096, 4095, 100] {
        file.set_len(cut).expect("a shorter file");
        match observe(&path, WORDS) {
            Err(OpenError::Truncated { len, .. }) => assert_eq!(len, cut),
            other => panic!("at {cut}: {:?}", other.err()),
        }
    }
    assert!(matches!(attach(&path, WORDS), Err(AttachError::Open(OpenError::Truncated { .. }))));
    drop(file);
    create(&path, &layout()).expect("a segment in its place");
    assert!(observe(&path, WORDS).is_ok());
}

#[test]
fn a_file_open_to_others_is_refused_and_replaced() {
    let scratch = Scratch::new();
    let path = scratch.segment();
    let datapath = create(&path, &layout()).expect("a new segment");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).expect("its mode");
    match attach(&path, WORDS) {
        Err(AttachError::Open(OpenError::Exposed { mode, .. })) => assert_eq!(mode, 0o640),
        other => panic!("{:?}", other.err()),
    }
    drop(datapath);
    let _datapath = create(&path, &layout()).expect("a segment in its place");
    assert!(attach(&path, WORDS).is_ok());
}

#[test]
fn another_users_segment_is_refused() {
    let scratch = Scratch::new();
    let path = scratch.segment();
    let _datapath = create(&path, &layout()).expect("a new segment");
    if chown(&path, Some(4321), None).is_err() {
        return; // Only root may give files away.
    }
    match attach(&path, WORDS) {
        Err(AttachError::Open(OpenError::NotOwner { owner, .. })) => assert_eq!(owner, 4321),
        other => panic!("{:?}", other.err()),
    }
    assert!(observe(&path, WORDS).is_ok(), "root may look");
}

#[test]
fn impossible_layouts_are_refused() {
    let path = Scratch::new().segment();
    let ring = |len| Layout { event_ring_len: len, ..layout() };
    for (layout, error) in [
        (ring(100_000), LayoutError::Ring { len: 100_000 }),
        (ring(8192), LayoutError::Ring { len: 8192 }),
        (ring(0), LayoutError::Size),
        (Layout { workers: 0, ..layout() }, LayoutError::Size),
        (Layout { link_rows: u32::MAX, ..layout() }, LayoutError::Size),
        (Layout { link_rows: 1 << 23, link_row_len: 1 << 23, ..layout() }, LayoutError::Size),
        (Layout { error_row_len: 24, ..layout() }, LayoutError::Size),
    ] {
        match create(&path, &layout) {
            Err(CreateError::Layout(found)) => assert_eq!(found, error),
            other => panic!("{:?}", other.err()),
        }
    }
}

/// Many at once: one becomes the datapath, the others hear that it lives.
#[test]
fn one_of_many_creators_wins() {
    let scratch = Scratch::new();
    let path = scratch.segment();
    for round in 1..=20 {
        let ends: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> =
                (0..6).map(|_| scope.spawn(|| create(&path, &layout()))).collect();
            threads.into_iter().map(|thread| thread.join().expect("no panic")).collect()
        });
        let (winners, losers): (Vec<_>, Vec<_>) = ends.into_iter().partition(Result::is_ok);
        assert_eq!(winners.len(), 1, "round {round}");
        for loser in losers {
            let error = loser.map(drop).expect_err("a loser");
            assert!(matches!(error, CreateError::DatapathLives { .. }), "{error}");
        }
        assert_eq!(observe(&path, WORDS).expect("a segment").generation, round);
        assert!(attach(&path, WORDS).is_ok());
    }
}

/// Each case makes files.
fn few_cases() -> ProptestConfig {
    ProptestConfig { cases: 64, failure_persistence: None, ..Default::default() }
}

/// A controller that looks while the old file is being replaced finds the dead segment or the
/// living one, and never takes the first for the second.
#[test]
fn the_new_datapath_is_not_taken_for_the_old_one() {
    let scratch = Scratch::new();
    let path = scratch.segment();
    for generation in 1..=50 {
        let end = std::thread::scope(|scope| {
            let creator = scope.spawn(|| create(&path, &layout()).expect("the only datapath"));
            loop {
                match attach(&path, WORDS) {
                    Ok(controller) => break assert_eq!(controller.generation, generation),
                    Err(AttachError::DatapathGone { .. }) => {}
                    Err(AttachError::Open(OpenError::NotFound { .. })) => {}
                    Err(error) => panic!("{error}"),
                }
            }
            creator.join().expect("no panic")
        });
        assert_eq!(end.generation, generation);
    }
}

proptest! {
    #![proptest_config(few_cases())]

    #[test]
    fn a_damaged_header_never_harms(word in 0..24u64, value: u64, small in 0..100_000u64) {
        let scratch = Scratch::on(Path::new("/dev/shm"));
        let path = scratch.segment();
        let _datapath = create(&path, &layout()).expect("a new segment");
        for value in [value, small, 0] {
            overwrite(&path, word, value);
            if let Ok(observer) = observe(&path, WORDS) {
                observer.counters.totals();
                observer.datapath_errors.entries();
                let _ = observer.links.read(0, &mut vec![0; observer.links.row_len()]);
            }
            let _ = attach(&path, WORDS);
        }
    }
}

/// The segment's own memory, damaged anywhere by anybody: the ends give errors, not more.
#[test]
fn noise_behind_the_header_never_harms() {
    let scratch = Scratch::on(Path::new("/dev/shm"));
    let path = scratch.segment();
    let small = Layout { link_rows: 8, event_ring_len: 65_536, ..layout() };
    let mut datapath = create(&path, &small).expect("a new segment");
    let file = OpenOptions::new().write(true).open(&path).expect("the segment");
    let len = file.metadata().expect("its length").len() as usize - 4096;
    let mut noise = 1u64;
    for _ in 0..20 {
        let bytes: Vec<u8> =
            (0..len / 8).flat_map(|_| xorshift(&mut noise).to_le_bytes()).collect();
        File::write_all_at(&file, &bytes, 4096).expect("room");
        let mut controller = attach(&path, WORDS).expect("a controller");
        let _ = controller.commands.push(b"command");
        let _ = datapath.commands.pop();
        datapath.commands.skip_all();
        let _ = datapath.events.push(b"event");
        let _ = controller.events.pop();
        controller.errors.observe(1, "noise");
        let _ = controller.links.read(3, &mut [0; 512]);
        controller.note.write(0, b"note").expect("the note");
        let observer = observe(&path, WORDS).expect("an observer");
        observer.datapath_errors.entries();
        assert_eq!(observer.controller_note.read(0, &mut [0; 4096]), Ok(Some(&b"note"[..])));
    }
}

fn xorshift(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}
