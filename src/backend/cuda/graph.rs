//! Many small launches as one: the calls of a sample captured once into a CUDA graph, which the device then goes through by itself.
//!
//! Launched one by one, kernels that end sooner than the CPU submits the next are timed at the rate of submission. A graph holds the kernels
//! with their arguments, and both events: they are nodes of it, so that what launching the graph costs lies outside the device's window.
//! Capturing, instantiating and uploading lie outside both clocks. Where the driver has no graphs, or one of these steps fails, launches
//! go one by one from then on, and every record that this concerns says why. What a library puts on the stream is captured like kernels of
//! ours; one that does not let it be goes alone.

use std::cell::RefCell;
use std::ffi::{c_uint, c_ulonglong};
use std::ops::RangeInclusive;
use std::rc::Rc;
use std::sync::Arc;

use cudarc::driver::sys::{self, CUevent, CUgraph, CUgraphExec, CUresult, CUstream, CUstreamCaptureMode};
use cudarc::driver::{CudaContext, CudaEvent, CudaStream, DriverError};

use super::failed;
use super::library::entries;
use crate::error::{Error, Result};

/// Kernel launches of a sample from which a graph is worth its capture, and the most that one holds.
const WORTH: RangeInclusive<u64> = 16..=4096;
/// Graphs kept of a plan: samples of one size and a few that begin elsewhere.
const KEPT: usize = 4;
/// The flag by which recording an event during capture becomes a node of the graph.
const EXTERNAL: c_uint = sys::CUevent_record_flags_enum::CU_EVENT_RECORD_EXTERNAL as c_uint;

/// Whether so many kernel launches go as a graph.
pub fn worth(launches: u64) -> bool {
    WORTH.contains(&launches)
}

// By the names that drivers of CUDA 12 and 13 both have.
entries! { Entries from driver:
    cuStreamBeginCapture_v2(CUstream, CUstreamCaptureMode) -> CUresult;
    cuStreamEndCapture(CUstream, *mut CUgraph) -> CUresult;
    cuEventRecordWithFlags(CUevent, CUstream, c_uint) -> CUresult;
    cuGraphInstantiateWithFlags(*mut CUgraphExec, CUgraph, c_ulonglong) -> CUresult;
    cuGraphUpload(CUgraphExec, CUstream) -> CUresult;
    cuGraphLaunch(CUgraphExec, CUstream) -> CUresult;
    cuGraphExecDestroy(CUgraphExec) -> CUresult;
    cuGraphDestroy(CUgraph) -> CUresult;
}

/// The graphs of a device's driver, or why there are none.
pub struct Graphs(RefCell<Result<Rc<Entries>, String>>);

impl Graphs {
    /// Those of the driver that is loaded.
    pub fn of_driver() -> Rc<Self> {
        Rc::new(Graphs(RefCell::new(Entries::find(|name| format!("the driver has no {name}")).map(Rc::new))))
    }

    fn refused(&self) -> Option<String> {
        self.0.borrow().as_ref().err().cloned()
    }

    fn entries(&self) -> Result<Rc<Entries>> {
        self.0.borrow().clone().map_err(|why| Error::Backend { backend: "cuda", why })
    }
}

/// Where graphs are captured and launched, and the events at their ends.
#[derive(Clone, Copy)]
pub struct Lane<'a> {
    pub context: &'a Arc<CudaContext>,
    pub stream: &'a CudaStream,
    pub start: &'a CudaEvent,
    pub end: &'a CudaEvent,
}

/// What a call of the driver's brought, in our words.
fn done(doing: &str, code: CUresult) -> Result<()> {
    code.result().map_err(|e: DriverError| failed(doing, e))
}

/// A captured graph, not yet a program.
struct Template {
    graph: CUgraph,
    entries: Rc<Entries>,
}

impl Template {
    /// Captures what `enqueue` puts on the stream, between both events. The stream is as before, whatever fails.
    fn captured(entries: &Rc<Entries>, lane: Lane<'_>, enqueue: &mut dyn FnMut() -> Result<()>) -> Result<Self> {
        let (stream, mode) = (lane.stream.cu_stream(), CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL);
        // SAFETY: the stream is live, and not the default one, which cannot be captured.
        done("capturing a graph", unsafe { (entries.cuStreamBeginCapture_v2)(stream, mode) })?;
        let record = |event: &CudaEvent| {
            // SAFETY: event and stream are live, and outlive every graph of a plan.
            done("recording an event in a graph", unsafe { (entries.cuEventRecordWithFlags)(event.cu_event(), stream, EXTERNAL) })
        };
        let put = record(lane.start).and_then(|()| enqueue()).and_then(|()| record(lane.end));
        let mut template = Template { graph: std::ptr::null_mut(), entries: entries.clone() };
        // SAFETY: the capture was begun above by this thread; a failed one leaves no graph.
        let ended = done("ending the capture of a graph", unsafe { (entries.cuStreamEndCapture)(stream, &mut template.graph) });
        put.and(ended)?;
        match template.graph.is_null() {
            true => Err(Error::Backend { backend: "cuda", why: "the driver captured no graph".into() }),
            false => Ok(template),
        }
    }
}

impl Drop for Template {
    fn drop(&mut self) {
        if !self.graph.is_null() {
            // SAFETY: made by a capture, destroyed once.
            let _ = unsafe { (self.entries.cuGraphDestroy)(self.graph) };
        }
    }
}

/// A graph on the device, ready to be launched.
struct Graph {
    exec: CUgraphExec,
    entries: Rc<Entries>,
    context: Arc<CudaContext>,
}

impl Graph {
    /// Instantiates and uploads it, and waits.
    fn new(template: &Template, lane: Lane<'_>) -> Result<Self> {
        let mut graph = Graph { exec: std::ptr::null_mut(), entries: template.entries.clone(), context: lane.context.clone() };
        // SAFETY: the template is a whole graph, and the pointer is to a live handle.
        let made = unsafe { (graph.entries.cuGraphInstantiateWithFlags)(&mut graph.exec, template.graph, 0) };
        done("instantiating a graph", made)?;
        // SAFETY: graph and stream are live.
        done("uploading a graph", unsafe { (graph.entries.cuGraphUpload)(graph.exec, lane.stream.cu_stream()) })?;
        lane.stream.synchronize().map_err(|e| failed("uploading a graph", e))?;
        Ok(graph)
    }
}

impl Drop for Graph {
    fn drop(&mut self) {
        if !self.exec.is_null() && self.context.bind_to_thread().is_ok() {
            // SAFETY: instantiated once, destroyed once; what it launched was waited for. A lost context fails here, rightly.
            let _ = unsafe { (self.entries.cuGraphExecDestroy)(self.exec) };
        }
    }
}

/// The calls of a sample: how many, and the set of the first.
type Calls = (u32, u32);

/// The graphs of one plan, the oldest first.
pub struct Album {
    graphs: Rc<Graphs>,
    kept: Vec<(Calls, Graph)>,
    /// Why there are none of this plan, where others may have some.
    refused: Option<String>,
}

impl Album {
    /// None yet.
    pub fn new(graphs: &Rc<Graphs>) -> Self {
        Album { graphs: graphs.clone(), kept: Vec::new(), refused: None }
    }

    /// Why there are none.
    pub fn refused(&self) -> Option<String> {
        self.refused.clone().or_else(|| self.graphs.refused())
    }

    /// From here on there are none, for this reason, of this plan or, unless `alone`, of any. A lost device is passed on: it runs nothing
    /// else either. What a library that was captured takes for one may be none, as the next launch tells.
    ///
    /// # Errors
    /// [`Error::DeviceLost`] and [`Error::Timeout`].
    pub fn refuse(&mut self, error: Error, alone: bool) -> Result<()> {
        self.kept.clear();
        let why = match error {
            Error::DeviceLost(_) | Error::Timeout(_) if !alone => return Err(error),
            Error::Backend { why, .. } => why,
            other => other.to_string(),
        };
        match alone {
            true => self.refused = Some(why),
            false => *self.graphs.0.borrow_mut() = Err(why),
        }
        Ok(())
    }

    /// Sees to it that the graph of these calls is on the device; `enqueue` puts them on the stream.
    ///
    /// # Errors
    /// Those of the driver.
    pub fn hold(&mut self, calls: Calls, lane: Lane<'_>, enqueue: &mut dyn FnMut() -> Result<()>) -> Result<()> {
        if self.kept.iter().any(|(of, _)| *of == calls) {
            return Ok(());
        }
        let template = Template::captured(&self.graphs.entries()?, lane, enqueue)?;
        if self.kept.len() == KEPT {
            self.kept.remove(0);
        }
        self.kept.push((calls, Graph::new(&template, lane)?));
        Ok(())
    }

    /// Puts a graph that is held on the stream; does not wait.
    ///
    /// # Errors
    /// Those of the driver.
    pub fn launch(&self, calls: Calls, lane: Lane<'_>) -> Result<()> {
        let held = self.kept.iter().find(|(of, _)| *of == calls);
        let (_, graph) = held.ok_or_else(|| Error::Backend { backend: "cuda", why: "there is no such graph".into() })?;
        // SAFETY: graph and stream are live; the kernels' tensors are allocated as long as their plan, which owns this.
        done("launching a graph", unsafe { (graph.entries.cuGraphLaunch)(graph.exec, lane.stream.cu_stream()) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_graph_is_for_many_small_launches() {
        assert_eq!([1, 15, 16, 4096, 4097].map(worth), [false, false, true, true, false]);
    }
}
