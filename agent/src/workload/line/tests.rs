use std::{
    io::{IoSlice, Write},
    mem::MaybeUninit,
    net::{TcpListener, TcpStream},
    os::{
        fd::{AsFd, BorrowedFd},
        unix::net::UnixStream as Client,
    },
    sync::{Arc, Weak},
};

use rustix::net::{
    SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg, sockopt::set_socket_linger,
};

use super::*;

/// A line, its other end, and what lives until it is closed.
fn line() -> (Line, Client, Weak<()>) {
    let (ours, theirs) = Client::pair().unwrap();
    ours.set_nonblocking(true).unwrap();
    let counted = Arc::new(());
    let open = Arc::downgrade(&counted);
    (Line::new(UnixStream::from_std(ours).unwrap(), counted), theirs, open)
}

fn send_with(client: &Client, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(8))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    assert!(ancillary.push(SendAncillaryMessage::ScmRights(descriptors)));
    let sent = sendmsg(client, &[IoSlice::new(bytes)], &mut ancillary, SendFlags::empty()).unwrap();
    assert_eq!(sent, bytes.len());
}

fn offer() -> Vec<u8> {
    encode(&ToAgent::Offer { region: "kv".into(), size: 1, device: "cpu".into(), ipc: None }).unwrap()
}

fn withdraw() -> Vec<u8> {
    encode(&ToAgent::Withdraw { region: "kv".into() }).unwrap()
}

async fn refused(line: &mut Line) -> String {
    let why = timeout(SOON, line.next()).await.unwrap().err().unwrap();
    assert_eq!(why.reason, "ProtocolError");
    why.message
}

#[tokio::test]
async fn a_descriptor_belongs_to_the_message_that_it_came_with() {
    let (mut line, mut client, _) = line();
    let file = tempfile::tempfile().unwrap();
    // All of it lies there before the first look.
    client.write_all(&withdraw()).unwrap();
    send_with(&client, &offer(), &[file.as_fd()]);
    client.write_all(&withdraw()).unwrap();
    for expected in [false, true, false] {
        let (_, descriptor) = line.next().await.unwrap().unwrap();
        assert_eq!(descriptor.is_some(), expected);
    }
    send_with(&client, &withdraw(), &[file.as_fd()]);
    assert!(refused(&mut line).await.contains("other than `offer`"));
}

#[tokio::test]
async fn nobody_makes_the_agent_hold_more_than_a_few_descriptors() {
    let file = tempfile::tempfile().unwrap();
    let many = [file.as_fd(); 8];
    for (at_once, words) in [(1, "more than one descriptor"), (2, "more than one"), (8, "descriptor")] {
        let (mut line, client, _) = line();
        // One with each byte, until nobody listens any more.
        for byte in offer().chunks(1) {
            send_with(&client, byte, &many[..at_once]);
        }
        let why = refused(&mut line).await;
        assert!(why.contains(words), "{why}");
        assert!(line.ends.get().unwrap().descriptors.len() <= 4);
    }
}

#[tokio::test]
async fn nothing_is_lost_when_a_wait_is_given_up() {
    let (mut line, mut client, _) = line();
    let bytes = [withdraw(), withdraw()].concat();
    let mut found = 0;
    for byte in bytes.chunks(1) {
        client.write_all(byte).unwrap();
        // As often as `select!` takes another branch.
        while let Ok(message) = timeout(Duration::from_millis(1), line.next()).await {
            found += usize::from(message.unwrap().is_some());
        }
    }
    assert_eq!(found, 2);
}

#[tokio::test]
async fn what_is_no_message_is_refused_in_few_words() {
    let name = "x".repeat(60_000);
    let deep = "[".repeat(60_000);
    for body in [format!(r#"{{"type":"{name}"}}"#), deep, "\u{fffd}".repeat(9)] {
        let (mut line, mut client, _) = line();
        let mut bytes = u32::try_from(body.len()).unwrap().to_be_bytes().to_vec();
        bytes.extend(body.as_bytes());
        let writer = std::thread::spawn(move || client.write_all(&bytes).map(|()| client));
        assert!(refused(&mut line).await.len() < 1000);
        writer.join().unwrap().unwrap();
    }
}

/// A socket whose last close waits for a peer that takes nothing.
fn lingering() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let peer = listener.accept().unwrap().0;
    stream.set_nonblocking(true).unwrap();
    while stream.write(&[0; 65536]).is_ok() {}
    set_socket_linger(&stream, Some(Duration::from_secs(600))).unwrap();
    (stream, peer)
}

#[tokio::test]
async fn closing_what_a_pod_has_sent_holds_up_nobody() {
    let began = Instant::now();
    for received in [true, false] {
        let (mut line, client, open) = line();
        let (stream, peer) = lingering();
        send_with(&client, &offer()[..4], &[stream.as_fd()]);
        drop(stream);
        if received {
            let _ = timeout(Duration::from_millis(50), line.next()).await;
            assert_eq!(line.ends.get().unwrap().descriptors.len(), 1);
        }
        drop(line);
        assert!(began.elapsed() < SOON);
        // It counts until it is closed, which is now.
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert!(open.upgrade().is_some());
        drop(peer);
        while open.upgrade().is_some() {
            assert!(began.elapsed() < SOON * 2);
            tokio::time::sleep(Duration::from_millis(10)).await; // polls another thread, with a deadline
        }
    }
}
