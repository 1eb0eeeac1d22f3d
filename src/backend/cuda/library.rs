//! Vendor's libraries: found at run time, handed a plan's tensors on the backend's stream, the fastest of their algorithms chosen once.
//!
//! Entry points are looked up by name in the library that the bindings found, not called through the bindings: those panic where a
//! symbol is missing, and a status that is newer than they are would be no value of their enums. Here a status is a number, and 0 is
//! success in all three libraries.

use std::cell::RefCell;
use std::collections::HashMap;
use std::ffi::c_void;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use cudarc::driver::sys::CUdeviceptr;
use cudarc::driver::{CudaContext, CudaStream};
use cudarc::{cublas, cublaslt, cudnn};

use super::memory::{Allocation, set};
use crate::error::{Error, Result};
use crate::plan::{Library, LibraryCall, Plan, Routine};

mod conv;
mod gemm;

/// Any object of a library.
type Handle = *mut c_void;

/// A table of a library's entry points, each found by its name.
macro_rules! entries {
    ($table:ident from $library:ident: $($name:ident($($argument:ty),*) -> $answer:ty;)*) => {
        #[allow(non_snake_case)]
        struct $table {
            $($name: unsafe extern "C" fn($($argument),*) -> $answer,)*
        }

        #[allow(non_snake_case)]
        impl $table {
            /// Looks all of them up, or tells by its name which is missing; to be asked of a library that is present only.
            fn find<E>(missing: impl Fn(&'static str) -> E) -> std::result::Result<Self, E> {
                // SAFETY: it was loaded before, with the same initialisers.
                let library = unsafe { cudarc::$library::sys::culib() };
                $(
                    // SAFETY: the types are those of the library's header.
                    let $name = unsafe { library.get(concat!(stringify!($name), "\0").as_bytes()) };
                    let $name = *$name.map_err(|_| missing(stringify!($name)))?;
                )*
                Ok($table { $($name,)* })
            }
        }
    };
}
pub(super) use entries;

/// Longest that the launches which judge one algorithm may take, but for two at least.
const JUDGED: Duration = Duration::from_millis(20);
/// The same in launches.
const LAUNCHES: u32 = 32;

/// A routine made ready for one problem.
trait Ready {
    /// How many algorithms it may be done by, that which the library prefers first.
    fn ways(&self) -> usize;

    /// The library's version and one of them, for the record.
    fn named(&self, way: usize) -> String;

    /// Prepares what depends on the inputs' values, once they are filled.
    fn prepare(&mut self, sets: &[Vec<CUdeviceptr>]) -> Result<()>;

    /// Puts one call on the stream.
    fn enqueue(&self, way: usize, set: usize, tensors: &[CUdeviceptr]) -> Result<()>;
}

/// Algorithms chosen so far, by all that the choice depends on: modules with and without checks, cold and warm, run the same one.
#[derive(Default)]
pub struct Chosen(RefCell<HashMap<String, usize>>);

/// A library's routine over the tensors of a plan.
pub struct Reference {
    ready: Box<dyn Ready>,
    way: usize,
    key: String,
    /// Lent to the library for as long as its handle lives, which `ready` ends first. Never poisoned: what it holds is the library's.
    _workspace: Allocation,
}

impl Reference {
    /// Opens the library and describes the problem to it.
    ///
    /// # Errors
    /// [`Error::Unavailable`] where it is not there, [`Error::Unsupported`] where it does not take the problem, [`Error::OutOfMemory`].
    pub fn new(context: &Arc<CudaContext>, stream: &Arc<CudaStream>, plan: &Plan, call: &LibraryCall) -> Result<Self> {
        if let Some(absent) = absent(call.library) {
            return Err(absent);
        }
        let workspace = Allocation::new(context, call.workspace)?;
        set(workspace.address(), 0, call.workspace)?;
        let named = Named { library: call.library, what: format!("{}/{} {}", plan.op, plan.variant, plan.precision) };
        let place = Place { stream: stream.cu_stream().cast(), workspace: workspace.address() as *mut c_void, bytes: call.workspace };
        let ready: Box<dyn Ready> = match (call.library, &call.routine) {
            (Library::Cublas, Routine::Gemm(gemm)) => Box::new(gemm::Plain::new(named, gemm, place)?),
            (Library::CublasLt, Routine::Gemm(gemm)) => Box::new(gemm::Proposed::new(named, gemm, plan.precision, place)?),
            (Library::Cudnn, Routine::Conv(conv)) => Box::new(conv::Convolution::new(named, conv, plan.precision, place, context)?),
            (library, _) => return Err(Error::unsupported(named.what, format!("a routine of {library}"), "none")),
        };
        let key = format!("{call:?} {}", plan.precision);
        Ok(Reference { ready, way: 0, key, _workspace: workspace })
    }

    /// Prepares it over filled tensors, and keeps the algorithm that is fastest over them. `time` takes a number of calls and how to put
    /// each on the stream. Outputs are written meanwhile.
    ///
    /// # Errors
    /// [`Error::Unsupported`] with the library's own status where no algorithm takes the problem.
    pub fn choose(&mut self, chosen: &Chosen, sets: &[Vec<CUdeviceptr>], time: Timer<'_>) -> Result<()> {
        self.ready.prepare(sets)?;
        let known = chosen.0.borrow().get(&self.key).copied();
        self.way = match known.filter(|&way| way < self.ready.ways()) {
            Some(way) => way,
            None => self.fastest(sets, time)?,
        };
        chosen.0.borrow_mut().insert(self.key.clone(), self.way);
        Ok(())
    }

    fn fastest(&self, sets: &[Vec<CUdeviceptr>], time: Timer<'_>) -> Result<usize> {
        let (mut best, mut refusal) = (None::<(Duration, usize)>, None);
        for way in 0..self.ready.ways() {
            let run = |launches: u32| {
                time(launches, &mut |i| {
                    let set = i as usize % sets.len();
                    self.ready.enqueue(way, set, &sets[set])
                })
            };
            // The first call loads code, the second tells how many there is time for.
            let judged = run(1).and_then(|_| run(1)).and_then(|one| {
                let launches = (JUDGED.as_nanos() / one.as_nanos().max(1)).clamp(2, LAUNCHES as u128) as u32;
                Ok(run(launches)? / launches)
            });
            match judged {
                Ok(taken) if best.is_none_or(|(least, _)| taken < least) => best = Some((taken, way)),
                Ok(_) => {}
                // An algorithm that the library proposes and then refuses, or has no memory for, is passed by; a lost device is not.
                Err(why @ (Error::Unsupported { .. } | Error::NoMemory(_) | Error::Backend { .. })) => {
                    refusal.get_or_insert(why);
                }
                Err(other) => return Err(other),
            }
        }
        best.map(|(_, way)| way)
            .ok_or_else(|| refusal.unwrap_or_else(|| Error::unsupported("a library's routine", "an algorithm for this problem", "none")))
    }

    /// Puts one call on the stream.
    ///
    /// # Errors
    /// The library's status, in our words.
    pub fn enqueue(&self, set: usize, tensors: &[CUdeviceptr]) -> Result<()> {
        self.ready.enqueue(self.way, set, tensors)
    }

    /// Library, version and algorithm.
    pub fn named(&self) -> String {
        self.ready.named(self.way)
    }
}

/// Times so many calls between two events; the function puts call number i on the stream.
pub type Timer<'a> = &'a dyn Fn(u32, &mut dyn FnMut(u32) -> Result<()>) -> Result<Duration>;

/// Where a routine runs: the backend's stream, and memory that it may use.
struct Place {
    stream: Handle,
    workspace: *mut c_void,
    bytes: u64,
}

/// Whose routine it is, and what it computes, for messages.
struct Named {
    library: Library,
    what: String,
}

impl Named {
    /// The error for a status that is not success. `name` is what the library calls it.
    fn failed(&self, doing: &str, status: u32, name: &str) -> Error {
        let Named { library, what } = self;
        match meaning(*library, status) {
            Meaning::Refused => {
                Error::unsupported(format!("{what}: {doing}"), format!("{library} to support it"), format!("{name} ({status})"))
            }
            Meaning::Absent => unavailable(*library, format!("{library} does not start ({what}: {doing} gave {name}, {status})")),
            Meaning::Failed => {
                Error::Backend { backend: "cuda", why: format!("{what}: {library} failed while {doing} ({name}, {status})") }
            }
            Meaning::Memory => Error::NoMemory(format!("{what}: {library} failed while {doing} ({name}, {status})")),
            Meaning::Lost => {
                let why = format!(
                    "{what}: {library} failed while {doing} ({name}, {status}); run again, and check the driver's log if it returns"
                );
                Error::DeviceLost(why)
            }
        }
    }
}

/// What a status means to a caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Meaning {
    /// It does not take this problem, here or at all.
    Refused,
    /// It does not start: parts of it are missing, or of another release.
    Absent,
    /// It says that the failure is its own.
    Failed,
    /// Memory was short.
    Memory,
    /// A launch failed: the context is of no more use.
    Lost,
}

/// Statuses of cuBLAS 11 and later, of cuDNN 8 (below 1000) and 9.
fn meaning(library: Library, status: u32) -> Meaning {
    match (library, status) {
        (Library::Cublas | Library::CublasLt, 1) | (Library::Cudnn, 1 | 1001..=1003 | 1005 | 1008) => Meaning::Absent,
        (Library::Cublas | Library::CublasLt, 14) | (Library::Cudnn, 4 | 4000..=4002 | 4005) => Meaning::Failed,
        (Library::Cublas | Library::CublasLt, 3) | (Library::Cudnn, 2 | 4003 | 4004) => Meaning::Memory,
        (Library::Cublas | Library::CublasLt, 11 | 13) | (Library::Cudnn, 7 | 8 | 5000..) => Meaning::Lost,
        _ => Meaning::Refused,
    }
}

/// Why a library cannot be called here; none where it can. Looks once a process.
pub fn absent(library: Library) -> Option<Error> {
    static PRESENT: [OnceLock<bool>; 3] = [const { OnceLock::new() }; 3];
    let present = PRESENT[library as usize].get_or_init(|| {
        // SAFETY: loads and closes libraries that ship with the toolkit; their initialisers are theirs to answer for.
        unsafe {
            match library {
                Library::Cublas => cublas::sys::is_culib_present(),
                Library::CublasLt => cublaslt::sys::is_culib_present(),
                Library::Cudnn => cudnn::sys::is_culib_present(),
            }
        }
    });
    (!present).then(|| unavailable(library, format!("{library} is not installed")))
}

/// The error for a library that lacks an entry point.
fn without(library: Library, entry: &str) -> Error {
    unavailable(library, format!("{library} has no {entry}"))
}

fn unavailable(library: Library, why: String) -> Error {
    let remedy = match library {
        Library::Cublas => "put libcublas.so.13 or .12 and the libcublasLt of its release on LD_LIBRARY_PATH",
        Library::CublasLt => "put libcublasLt.so.13 or .12 on LD_LIBRARY_PATH",
        Library::Cudnn => "put libcudnn.so.9 and all its parts, of one release, on LD_LIBRARY_PATH",
    };
    Error::Unavailable { backend: library.key().into(), why, remedy: remedy.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_that_refuse_are_told_from_those_that_end_a_context() {
        assert_eq!(meaning(Library::Cublas, 15), Meaning::Refused);
        assert_eq!(meaning(Library::CublasLt, 13), Meaning::Lost);
        assert_eq!(meaning(Library::Cublas, 3), Meaning::Memory);
        assert_eq!([meaning(Library::Cublas, 1), meaning(Library::Cudnn, 1002), meaning(Library::Cudnn, 1008)], [Meaning::Absent; 3]);
        assert_eq!([meaning(Library::CublasLt, 14), meaning(Library::Cudnn, 4), meaning(Library::Cudnn, 4000)], [Meaning::Failed; 3]);
        for refused in [9, 2000, 3000, 3007, 14] {
            assert_eq!(meaning(Library::Cudnn, refused), Meaning::Refused, "{refused}");
        }
        assert_eq!((meaning(Library::Cudnn, 8), meaning(Library::Cudnn, 5001)), (Meaning::Lost, Meaning::Lost));
    }

    #[test]
    fn a_library_without_memory_is_out_of_memory_as_a_driver_is() {
        for (library, status) in [(Library::Cublas, 3), (Library::CublasLt, 3), (Library::Cudnn, 2), (Library::Cudnn, 4003)] {
            let named = Named { library, what: "matmul/library f32".into() };
            let why = named.failed("starting", status, "ALLOC_FAILED");
            assert!(matches!(why, Error::NoMemory(_)), "{why:?}");
            assert_eq!(why.exit_code(), 5);
        }
    }

    #[test]
    fn a_missing_library_is_one_sentence_with_a_way_out() {
        for library in Library::ALL {
            let text = unavailable(library, format!("{library} is not installed")).to_string();
            assert!(text.contains(&format!("{library} is not installed; put lib")) && text.contains("LD_LIBRARY_PATH"), "{text}");
        }
    }
}
