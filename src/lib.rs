//! Green threads for Linux: greenlet-style switches and gevent-style blocking IO on one epoll reactor per thread.

#[cfg(not(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64"))))]
compile_error!("greenling runs on Linux on x86-64 and aarch64 only: it needs epoll, eventfd and madvise guards");

mod pure;
mod sys;
