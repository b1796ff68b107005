//! Batches on Linux: recvmmsg, and sendmmsg with segmentation (UDP_SEGMENT).
//!
//! The only unsafe code of the packet path. It hands the kernel pointers into arrays that
//! live on this stack frame or in the caller's buffers for the whole call, and reads back
//! only the lengths that the kernel reports. quinn-udp, which does much the same, sets DF,
//! and packets of 4.2 KB from older daemons then fail on a link of 1,500 bytes.
#![allow(unsafe_code)]
// Lengths and flags of messages have other types with musl than with glibc: `as _` takes the
// one that is wanted, for small values that each of them holds.
#![allow(clippy::cast_possible_truncation, clippy::cast_possible_wrap, clippy::cast_sign_loss)]

use std::io;
use std::mem::{self, MaybeUninit};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::os::fd::AsRawFd as _;
use std::ptr;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use socket2::{SockAddr, Socket};

use super::super::calls::{self, Call};
use super::super::local::{LocalAddresses, Locality};
use super::super::options::Wish;

use super::pieces::Position;
use super::refusals::{Refusals, Remembered};
use super::{BATCH, Datagram, Datagrams, Received, Run, SLOT, SendError, canonical, for_family};

/// Room for the control messages of one datagram: a packet-info, and a segment size or a
/// drop counter. 128 > CMSG_SPACE(20) + CMSG_SPACE(4) on every platform.
const CONTROL: usize = 128;

/// Control messages want the alignment of `cmsghdr`.
#[repr(C, align(8))]
#[derive(Clone, Copy)]
struct Control([u8; CONTROL]);

/// A UDP socket that receives and sends in batches.
#[derive(Debug)]
pub struct BatchSocket {
    socket: Socket,
    address: SocketAddr,
    refusals: Refusals,
    /// The machine's addresses, where somebody reads them.
    local: OnceLock<Arc<LocalAddresses>>,
}

/// Why a batch of messages ended before its last.
enum Stop {
    /// The socket's send buffer is full.
    Full,
    /// The next run must go out without segmentation.
    Singly,
    /// The next run must leave from the kernel's choice of address.
    AnySource,
}

/// Runs that were refused as they were to go, and go in another way.
#[derive(Clone, Copy, Default)]
struct Again {
    singly: Option<usize>,
    any_source: Option<usize>,
    /// Refused without its address as well, which it therefore keeps.
    own_source: Option<usize>,
}

impl BatchSocket {
    /// Takes over a socket of [`super::open`], and has the kernel tell which of our addresses
    /// a datagram came to and how many it dropped, where it can. Never sets DF.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn new(socket: Socket) -> io::Result<Self> {
        let bound = socket.local_addr()?;
        let address = bound.as_socket().ok_or(io::ErrorKind::InvalidInput)?;
        let set = |wish: Wish, level, name, value| {
            wish.settle(set_option(&socket, level, name, value));
        };
        set(Wish::DropCounter, libc::SOL_SOCKET, libc::SO_RXQ_OVFL, 1);
        let dont = libc::IP_PMTUDISC_DONT;
        set(Wish::Fragmentation, libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, dont);
        if address.is_ipv6() {
            let dont = libc::IPV6_PMTUDISC_DONT;
            set(Wish::Fragmentation, libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, dont);
        }
        if address.ip().is_unspecified() {
            if address.is_ipv6() {
                set(Wish::PacketInfo, libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO, 1);
            } else {
                set(Wish::PacketInfo, libc::IPPROTO_IP, libc::IP_PKTINFO, 1);
            }
        }
        Ok(Self { socket, address, refusals: Refusals::default(), local: OnceLock::new() })
    }

    /// Sends at most [`BATCH`] messages from `at` on, which moves behind what was sent or
    /// refused; `sent` is told of that. Runs of `again` go in the way that is left to them.
    ///
    /// One sendmmsg, repeated behind each message that failed.
    fn send_batch(
        &self,
        runs: &[Run<'_>],
        at: &mut Position,
        again: Again,
        sent: &mut dyn FnMut(usize, usize, Result<(), SendError>),
    ) -> Result<(), Stop> {
        // They own nothing, so nobody has to drop those that were written.
        const { assert!(!mem::needs_drop::<SockAddr>()) };
        let mut names: [MaybeUninit<SockAddr>; BATCH] = [const { MaybeUninit::uninit() }; BATCH];
        let mut vectors: [MaybeUninit<libc::iovec>; BATCH] =
            [const { MaybeUninit::uninit() }; BATCH];
        let mut controls: [MaybeUninit<Control>; BATCH] = [const { MaybeUninit::uninit() }; BATCH];
        let mut messages: [MaybeUninit<libc::mmsghdr>; BATCH] =
            [const { MaybeUninit::uninit() }; BATCH];
        let mut ends = [Position::default(); BATCH];
        let mut written = 0;
        let mut next = *at;
        let refused = self.refusals.current();
        let slots = names.iter_mut().zip(&mut vectors).zip(&mut controls).zip(&mut messages);
        for ((((name, vector), control), message), end) in slots.zip(&mut ends) {
            let segmented = |run: &Run<'_>| {
                let takes_segments = |refused: &Remembered| refused.takes_segments(run.to.ip());
                again.singly != Some(next.run) && refused.as_deref().is_none_or(takes_segments)
            };
            let Some((mut piece, behind)) = next.next(runs, segmented) else { break };
            let lacks = |from: IpAddr| refused.as_deref().is_some_and(|known| known.lacks(from));
            if again.any_source == Some(next.run) || piece.from.is_some_and(lacks) {
                piece.from = None;
            }
            let name = name.write(for_family(piece.to, self.address).into());
            let vector = vector.write(libc::iovec {
                iov_base: piece.bytes.as_ptr().cast_mut().cast(),
                iov_len: piece.bytes.len(),
            });
            // SAFETY: msghdr is plain data, for which zeros are a valid value.
            let mut header: libc::msghdr = unsafe { mem::zeroed() };
            header.msg_name = name.as_ptr().cast_mut().cast();
            header.msg_namelen = name.len();
            header.msg_iov = vector;
            header.msg_iovlen = 1;
            let control = control.write(Control([0; CONTROL]));
            write_control(&mut header, control, &piece, self.address.is_ipv6());
            message.write(libc::mmsghdr { msg_hdr: header, msg_len: 0 });
            *end = behind;
            next = behind;
            written += 1;
        }
        drop(refused);
        let mut ends = ends.iter().take(written);
        // The address of ours that a run should have left from.
        let tried_without = |run: usize| {
            let is_tried = again.any_source == Some(run);
            is_tried.then(|| runs.get(run).and_then(|run| run.from)).flatten()
        };
        while let rest @ 1.. = ends.len() {
            let done = written - rest;
            calls::count(Call::Send);
            // SAFETY: the messages from `done` to `written` were written above, and all that
            // they point to (names, vectors, controls, the runs' bytes) outlives this call. The
            // kernel only reads through the pointers of a send, but for `msg_len`, which is
            // part of `messages`.
            let count = unsafe {
                libc::sendmmsg(
                    self.socket.as_raw_fd(),
                    messages.as_mut_ptr().add(done).cast(),
                    u32::try_from(rest).expect("a batch is at most 64"),
                    libc::MSG_DONTWAIT as _,
                )
            };
            if let Ok(count) = usize::try_from(count) {
                for end in ends.by_ref().take(count) {
                    if let Some(from) = tried_without(at.run) {
                        self.passed_without(from);
                    }
                    sent(at.run, at.until(*end, runs).packets(), Ok(()));
                    *at = *end;
                }
                continue;
            }
            let error = io::Error::last_os_error();
            if error.kind() == io::ErrorKind::Interrupted {
                continue;
            }
            if error.kind() == io::ErrorKind::WouldBlock {
                return Err(Stop::Full);
            }
            let end = ends.next().expect("a message that failed");
            let piece = at.until(*end, runs);
            let packets = piece.packets();
            // Its packets may still pass.
            let now = Instant::now();
            if let Some(from) = tried_without(at.run) {
                self.refusals.tried_without(from, false, self.locality(from, now), now);
            } else if let Some(from) = piece.from
                && again.own_source != Some(at.run)
                && self.refusals.may_be_of_source(&error, from, self.locality(from, now), now)
            {
                return Err(Stop::AnySource);
            }
            let is_segmented = packets > 1;
            if is_segmented && self.refusals.is_of_segments(&error, piece.to.ip(), now) {
                return Err(Stop::Singly);
            }
            sent(at.run, packets, Err(SendError::from(&error)));
            *at = *end;
        }
        Ok(())
    }

    /// Whether an address is this machine's, as far as that is known.
    fn locality(&self, address: IpAddr, now: Instant) -> Locality {
        self.local.get().map_or(Locality::Unknown, |local| local.look(address, now))
    }

    /// Notes that a packet passed only without the address of ours that it should leave from.
    fn passed_without(&self, from: IpAddr) {
        let now = Instant::now();
        let is_new = self.refusals.tried_without(from, true, self.locality(from, now), now);
        if is_new && self.local.get().is_some_and(|local| local.is_news(from)) {
            tracing::info!(address = %from, "an address of ours is gone: replies leave from another");
        }
    }
}

impl Datagrams for BatchSocket {
    fn receive(&self, received: &mut Received) -> io::Result<()> {
        received.datagrams.clear();
        let mut names: [MaybeUninit<libc::sockaddr_storage>; BATCH] =
            [const { MaybeUninit::uninit() }; BATCH];
        let mut controls: [MaybeUninit<Control>; BATCH] = [const { MaybeUninit::uninit() }; BATCH];
        let mut vectors: [MaybeUninit<libc::iovec>; BATCH] =
            [const { MaybeUninit::uninit() }; BATCH];
        let mut messages: [MaybeUninit<libc::mmsghdr>; BATCH] =
            [const { MaybeUninit::uninit() }; BATCH];
        let (buffers, _) = received.buffer.as_chunks_mut::<SLOT>();
        let slots = buffers.len().min(BATCH);
        let places = names.iter_mut().zip(&mut controls).zip(&mut vectors).zip(&mut messages);
        for (buffer, (((name, control), vector), message)) in buffers.iter_mut().zip(places) {
            let vector =
                vector.write(libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: SLOT });
            // SAFETY: msghdr is plain data, for which zeros are a valid value.
            let mut header: libc::msghdr = unsafe { mem::zeroed() };
            header.msg_name = name.as_mut_ptr().cast();
            header.msg_namelen = socklen(size_of::<libc::sockaddr_storage>());
            header.msg_iov = vector;
            header.msg_iovlen = 1;
            header.msg_control = control.as_mut_ptr().cast();
            header.msg_controllen = CONTROL as _;
            message.write(libc::mmsghdr { msg_hdr: header, msg_len: 0 });
        }
        calls::count(Call::Receive);
        // SAFETY: the first `slots` messages were written above, one for each whole slot of the
        // buffer, and what they point to lives until the results are read below.
        let count = unsafe {
            libc::recvmmsg(
                self.socket.as_raw_fd(),
                messages.as_mut_ptr().cast(),
                u32::try_from(slots).expect("a batch is at most 64"),
                libc::MSG_WAITFORONE as _,
                ptr::null_mut(),
            )
        };
        let Ok(count) = usize::try_from(count) else {
            let error = io::Error::last_os_error();
            return if super::passes(&error) { Ok(()) } else { Err(error) };
        };
        for (index, (message, name)) in messages.iter().zip(&names).take(count).enumerate() {
            // SAFETY: the kernel filled the first `count` messages, which were written before.
            let message = unsafe { message.assume_init_ref() };
            // SAFETY: the kernel wrote an address of `msg_namelen` bytes into this name.
            let Some(from) = (unsafe { read_address(name, message.msg_hdr.msg_namelen) }) else {
                continue;
            };
            // SAFETY: the header is as the kernel left it, its control buffer is alive.
            let to = unsafe { read_control(&message.msg_hdr, &mut received.kernel_dropped) };
            received.datagrams.push(Datagram {
                from: canonical(from),
                to,
                start: index * SLOT,
                length: (message.msg_len as usize).min(SLOT),
            });
        }
        Ok(())
    }

    fn send(&self, runs: &[Run<'_>], sent: &mut dyn FnMut(usize, usize, Result<(), SendError>)) {
        let mut at = Position::default();
        let mut again = Again::default();
        while at.run < runs.len() {
            match self.send_batch(runs, &mut at, again, sent) {
                Ok(()) => {}
                Err(Stop::Singly) => {
                    again.singly = Some(at.run);
                    if again.any_source.take_if(|run| *run == at.run).is_some() {
                        again.own_source = Some(at.run);
                    }
                }
                Err(Stop::AnySource) => again.any_source = Some(at.run),
                Err(Stop::Full) => {
                    // It will not have room for the next one either: to ask for each would
                    // only take time from those who read.
                    while let Some((rest, behind)) = at.next(runs, |_| true) {
                        sent(at.run, rest.packets(), Err(SendError::Full));
                        at = behind;
                    }
                }
            }
        }
    }

    fn address(&self) -> SocketAddr {
        self.address
    }

    fn use_local(&self, local: &Arc<LocalAddresses>) {
        // The first stays: a socket belongs to one relay.
        self.local.get_or_init(|| Arc::clone(local));
    }
}

fn socklen(length: usize) -> libc::socklen_t {
    libc::socklen_t::try_from(length).expect("lengths of addresses and options are small")
}

pub(super) fn set_option(socket: &Socket, level: i32, name: i32, value: i32) -> io::Result<()> {
    // SAFETY: the kernel reads `size_of::<i32>()` bytes from `value`, which is alive.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            name,
            ptr::from_ref(&value).cast(),
            socklen(size_of::<i32>()),
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Asks for our source address and for segmentation, where the run wants them.
fn write_control(header: &mut libc::msghdr, control: &mut Control, run: &Run<'_>, ipv6: bool) {
    header.msg_control = control.0.as_mut_ptr().cast();
    header.msg_controllen = CONTROL as _;
    // SAFETY: the control buffer is zeroed, aligned and longer than the messages written into
    // it (see CONTROL), so CMSG_FIRSTHDR and CMSG_NXTHDR stay inside it and are not null.
    unsafe {
        let mut used = 0;
        let mut message = libc::CMSG_FIRSTHDR(header);
        match run.from {
            Some(from) if ipv6 => {
                let from = match from {
                    IpAddr::V4(from) => from.to_ipv6_mapped(),
                    IpAddr::V6(from) => from,
                };
                let mut info: libc::in6_pktinfo = mem::zeroed();
                info.ipi6_addr.s6_addr = from.octets();
                used += write_message(message, libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, info);
                message = libc::CMSG_NXTHDR(header, message);
            }
            Some(IpAddr::V4(from)) => {
                let mut info: libc::in_pktinfo = mem::zeroed();
                info.ipi_spec_dst.s_addr = u32::from_ne_bytes(from.octets());
                used += write_message(message, libc::IPPROTO_IP, libc::IP_PKTINFO, info);
                message = libc::CMSG_NXTHDR(header, message);
            }
            Some(IpAddr::V6(_)) | None => {}
        }
        if run.segment < run.bytes.len() {
            let segment = u16::try_from(run.segment).unwrap_or(u16::MAX);
            used += write_message(message, libc::SOL_UDP, libc::UDP_SEGMENT, segment);
        }
        header.msg_controllen = used as _;
        if used == 0 {
            header.msg_control = ptr::null_mut();
        }
    }
}

/// Writes one control message and returns the room that it takes.
///
/// # Safety
/// `message` points to zeroed room for `CMSG_SPACE(size_of::<T>())` bytes.
unsafe fn write_message<T>(message: *mut libc::cmsghdr, level: i32, kind: i32, data: T) -> usize {
    let length = socklen(size_of::<T>());
    // SAFETY: the caller gives the room; CMSG_DATA is inside it, and may be unaligned for T.
    unsafe {
        (*message).cmsg_level = level;
        (*message).cmsg_type = kind;
        (*message).cmsg_len = libc::CMSG_LEN(length) as _;
        ptr::write_unaligned(libc::CMSG_DATA(message).cast(), data);
        libc::CMSG_SPACE(length) as usize
    }
}

/// Reads the address that the kernel wrote for a received datagram.
///
/// # Safety
/// The kernel wrote `length` bytes of an address into `name`.
unsafe fn read_address(
    name: &MaybeUninit<libc::sockaddr_storage>,
    length: libc::socklen_t,
) -> Option<SocketAddr> {
    let name = name.as_ptr();
    // SAFETY: each family is read only where the kernel wrote at least its length.
    unsafe {
        if (length as usize) < size_of::<libc::sa_family_t>() {
            return None;
        }
        match i32::from(*name.cast::<libc::sa_family_t>()) {
            libc::AF_INET if length as usize >= size_of::<libc::sockaddr_in>() => {
                let address = &*name.cast::<libc::sockaddr_in>();
                let ip = Ipv4Addr::from(address.sin_addr.s_addr.to_ne_bytes());
                Some(SocketAddr::new(ip.into(), u16::from_be(address.sin_port)))
            }
            libc::AF_INET6 if length as usize >= size_of::<libc::sockaddr_in6>() => {
                let address = &*name.cast::<libc::sockaddr_in6>();
                let ip = Ipv6Addr::from(address.sin6_addr.s6_addr);
                let port = u16::from_be(address.sin6_port);
                Some(SocketAddrV6::new(ip, port, 0, address.sin6_scope_id).into())
            }
            _ => None,
        }
    }
}

/// Reads which address of ours a datagram came to, and the kernel's drop counter.
///
/// # Safety
/// `header` is as recvmmsg left it, and its control buffer is alive.
unsafe fn read_control(header: &libc::msghdr, kernel_dropped: &mut u32) -> Option<IpAddr> {
    let mut to = None;
    // SAFETY: CMSG_FIRSTHDR and CMSG_NXTHDR walk only what the kernel filled; the data of each
    // kind is read with the type that the kernel writes for it.
    unsafe {
        let mut message = libc::CMSG_FIRSTHDR(header);
        while !message.is_null() {
            let data = libc::CMSG_DATA(message);
            match ((*message).cmsg_level, (*message).cmsg_type) {
                (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
                    let info: libc::in_pktinfo = ptr::read_unaligned(data.cast());
                    // Our own address, also where the datagram was sent to a broadcast address.
                    to = Some(Ipv4Addr::from(info.ipi_spec_dst.s_addr.to_ne_bytes()).into());
                }
                (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
                    let info: libc::in6_pktinfo = ptr::read_unaligned(data.cast());
                    to = Some(IpAddr::V6(Ipv6Addr::from(info.ipi6_addr.s6_addr)).to_canonical());
                }
                (libc::SOL_SOCKET, libc::SO_RXQ_OVFL) => {
                    *kernel_dropped = ptr::read_unaligned(data.cast());
                }
                _ => {}
            }
            message = libc::CMSG_NXTHDR(header, message);
        }
    }
    to
}
