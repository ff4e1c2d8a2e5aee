//! A way to a server of HTTP/2 that breaks once: when the first answer has begun and none of its content has come.

use std::io::{Read, Result, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

/// Listens at [`Cut::HOST`], and passes everything on to the same port of 127.0.0.1.
pub struct Cut {
    pub port: u16,
    broken: Arc<AtomicBool>,
}

impl Cut {
    pub const HOST: &str = "127.0.0.2";

    pub fn start() -> Self {
        let listener = TcpListener::bind((Self::HOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let broken = Arc::new(AtomicBool::new(false));
        let cut = Self { port, broken: Arc::clone(&broken) };
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                // Where nobody listens, the client finds its connection closed.
                let Ok(server) = TcpStream::connect(("127.0.0.1", port)) else { continue };
                let (mut asks, mut is_asked) = (client.try_clone().unwrap(), server.try_clone().unwrap());
                thread::spawn(move || std::io::copy(&mut asks, &mut is_asked));
                let broken = Arc::clone(&broken);
                thread::spawn(move || {
                    let _ = answer(&server, &client, &broken);
                    let _ = server.shutdown(Shutdown::Both);
                    client.shutdown(Shutdown::Both)
                });
            }
        });
        cut
    }

    /// Whether it has broken.
    pub fn is_broken(&self) -> bool {
        self.broken.load(Ordering::SeqCst)
    }
}

/// Passes on what the server says, until it is to be broken.
fn answer(mut server: &TcpStream, mut client: &TcpStream, broken: &AtomicBool) -> Result<()> {
    // What a frame begins with (RFC 9113, section 4.1): 24 bits of length, its type (0 is data), flags, its stream.
    let mut head = [0; 9];
    loop {
        server.read_exact(&mut head)?;
        if head[3] == 0 && !broken.swap(true, Ordering::SeqCst) {
            return Ok(());
        }
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        client.write_all(&head)?;
        std::io::copy(&mut server.take(length.into()), &mut client)?;
    }
}
