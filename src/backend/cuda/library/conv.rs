//! Convolutions by cuDNN, held to its implicit matrix products: Winograd's and Fourier's algorithms do other work than is counted.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::sync::Arc;

use cudarc::cudnn::sys as dnn;
use cudarc::driver::CudaContext;
use cudarc::driver::sys::CUdeviceptr;

use super::super::memory::{Allocation, download, upload};
use super::{Handle, Named, Place, Ready, entries, without};
use crate::error::{Error, Result};
use crate::op::DType;
use crate::plan::{Conv, FilterLayout, Precision};

/// Factors of the convolution and of what the output held: a factor of 0 means that it is not read.
static ONE: f32 = 1.0;
static ZERO: f32 = 0.0;

/// The algorithms that compute the sums that are counted, by number and name.
const ALGORITHMS: [(dnn::cudnnConvolutionFwdAlgo_t, &str); 2] = [
    (dnn::cudnnConvolutionFwdAlgo_t::CUDNN_CONVOLUTION_FWD_ALGO_IMPLICIT_PRECOMP_GEMM, "implicit product, indices computed before"),
    (dnn::cudnnConvolutionFwdAlgo_t::CUDNN_CONVOLUTION_FWD_ALGO_IMPLICIT_GEMM, "implicit product"),
];

entries! { Dnn from cudnn:
    cudnnCreate(*mut Handle) -> u32;
    cudnnDestroy(Handle) -> u32;
    cudnnGetVersion() -> usize;
    cudnnGetErrorString(u32) -> *const c_char;
    cudnnSetStream(Handle, Handle) -> u32;
    cudnnCreateTensorDescriptor(*mut Handle) -> u32;
    cudnnSetTensor4dDescriptor(Handle, u32, u32, c_int, c_int, c_int, c_int) -> u32;
    cudnnDestroyTensorDescriptor(Handle) -> u32;
    cudnnCreateFilterDescriptor(*mut Handle) -> u32;
    cudnnSetFilter4dDescriptor(Handle, u32, u32, c_int, c_int, c_int, c_int) -> u32;
    cudnnDestroyFilterDescriptor(Handle) -> u32;
    cudnnCreateConvolutionDescriptor(*mut Handle) -> u32;
    cudnnSetConvolution2dDescriptor(Handle, c_int, c_int, c_int, c_int, c_int, c_int, u32, u32) -> u32;
    cudnnSetConvolutionMathType(Handle, u32) -> u32;
    cudnnSetConvolutionGroupCount(Handle, c_int) -> u32;
    cudnnDestroyConvolutionDescriptor(Handle) -> u32;
    cudnnGetConvolutionForwardWorkspaceSize(Handle, Handle, Handle, Handle, Handle, u32, *mut usize) -> u32;
    cudnnConvolutionForward(Handle, *const f32, Handle, *const c_void, Handle, *const c_void, Handle, u32, *mut c_void, usize, *const f32, Handle, *mut c_void) -> u32;
}

/// The number that stands for a storage type.
const fn stored(dtype: DType) -> u32 {
    (match dtype {
        DType::F64 => dnn::cudnnDataType_t::CUDNN_DATA_DOUBLE,
        DType::F32 => dnn::cudnnDataType_t::CUDNN_DATA_FLOAT,
        DType::F16 => dnn::cudnnDataType_t::CUDNN_DATA_HALF,
        DType::BF16 => dnn::cudnnDataType_t::CUDNN_DATA_BFLOAT16,
        // It knows no unsigned words, and no convolution stores any.
        DType::U32 | DType::I32 => dnn::cudnnDataType_t::CUDNN_DATA_INT32,
        DType::F8 => dnn::cudnnDataType_t::CUDNN_DATA_FP8_E4M3,
        DType::I8 => dnn::cudnnDataType_t::CUDNN_DATA_INT8,
    }) as u32
}

/// The arithmetic that a precision allows: in f32 fused multiply-adds alone, as the default would round factors to tf32.
const fn math(precision: Precision) -> u32 {
    (match precision {
        Precision::F32 | Precision::F64 => dnn::cudnnMathType_t::CUDNN_FMA_MATH,
        Precision::TF32 => dnn::cudnnMathType_t::CUDNN_DEFAULT_MATH,
        Precision::F16 | Precision::BF16 | Precision::Fp8 | Precision::Int8 => dnn::cudnnMathType_t::CUDNN_TENSOR_OP_MATH,
    }) as u32
}

/// `9.10.2` of 91002; cuDNN 8 counted 8907 for 8.9.7.
fn version(number: usize) -> String {
    match number {
        10_000.. => format!("{}.{}.{}", number / 10_000, number / 100 % 100, number % 100),
        _ => format!("{}.{}.{}", number / 1000, number / 100 % 10, number % 100),
    }
}

/// One convolution.
pub struct Convolution {
    named: Named,
    entries: Dnn,
    place: Place,
    context: Arc<CudaContext>,
    conv: Conv,
    width: u64,
    handle: Handle,
    input: Handle,
    filter: Handle,
    output: Handle,
    descriptor: Handle,
    /// Indices into [`ALGORITHMS`].
    ways: Vec<usize>,
    /// Filters of each set in the library's layout, where that is not ours.
    relaid: Vec<Allocation>,
}

impl Convolution {
    /// Opens the library for one problem.
    ///
    /// # Errors
    /// The library's status, in our words; [`Error::Unsupported`] where neither algorithm takes the problem.
    pub fn new(named: Named, conv: &Conv, precision: Precision, place: Place, context: &Arc<CudaContext>) -> Result<Self> {
        let entries = Dnn::find(|entry| without(named.library, entry))?;
        let (null, context) = (std::ptr::null_mut(), context.clone());
        let width = precision.storage().bytes();
        let mut made = Convolution {
            named,
            entries,
            place,
            context,
            conv: *conv,
            width,
            handle: null,
            input: null,
            filter: null,
            output: null,
            descriptor: null,
            ways: Vec::new(),
            relaid: Vec::new(),
        };
        made.describe(precision)?;
        made.ways = made.offered()?;
        Ok(made)
    }

    /// A status in our words, by the library's own name of it.
    fn checked(&self, doing: &str, status: u32) -> Result<()> {
        if status == 0 {
            return Ok(());
        }
        // SAFETY: the answer is a text that lives as long as the library.
        let name = unsafe { CStr::from_ptr((self.entries.cudnnGetErrorString)(status)) };
        Err(self.named.failed(doing, status, &name.to_string_lossy()))
    }

    fn describe(&mut self, precision: Precision) -> Result<()> {
        // SAFETY: the pointer is to a live handle.
        let status = unsafe { (self.entries.cudnnCreate)(&mut self.handle) };
        self.checked("starting", status)?;
        // SAFETY: the handle is live, and the stream outlives it.
        let status = unsafe { (self.entries.cudnnSetStream)(self.handle, self.place.stream) };
        self.checked("taking a stream", status)?;
        let Conv { n, h, w, c_in, oh, ow, c_out, kh, kw, groups, .. } = self.conv;
        let storage = stored(precision.storage());
        self.input = self.tensor(storage, [n, c_in, h, w])?;
        self.output = self.tensor(storage, [n, c_out, oh, ow])?;
        // SAFETY: the pointer is to a live handle.
        let status = unsafe { (self.entries.cudnnCreateFilterDescriptor)(&mut self.filter) };
        self.checked("describing the filters", status)?;
        let [k, c, r, s] = self.narrow([c_out, c_in / groups, kh, kw])?;
        let nhwc = dnn::cudnnTensorFormat_t::CUDNN_TENSOR_NHWC as u32;
        // SAFETY: the descriptor is live.
        let status = unsafe { (self.entries.cudnnSetFilter4dDescriptor)(self.filter, storage, nhwc, k, c, r, s) };
        self.checked("describing the filters", status)?;
        self.steps(precision)
    }

    fn tensor(&self, storage: u32, extents: [u64; 4]) -> Result<Handle> {
        let [n, c, h, w] = self.narrow(extents)?;
        let mut made = std::ptr::null_mut();
        // SAFETY: the pointer is to a live handle.
        self.checked("describing a tensor", unsafe { (self.entries.cudnnCreateTensorDescriptor)(&mut made) })?;
        let nhwc = dnn::cudnnTensorFormat_t::CUDNN_TENSOR_NHWC as u32;
        // SAFETY: the descriptor is live.
        let status = unsafe { (self.entries.cudnnSetTensor4dDescriptor)(made, nhwc, storage, n, c, h, w) };
        self.checked("describing a tensor", status).inspect_err(|_| {
            // SAFETY: it is live and belongs to nobody yet.
            let _ = unsafe { (self.entries.cudnnDestroyTensorDescriptor)(made) };
        })?;
        Ok(made)
    }

    /// Padding, steps, groups and arithmetic.
    fn steps(&mut self, precision: Precision) -> Result<()> {
        let Conv { stride, padding, dilation, groups, .. } = self.conv;
        let [stride, padding, dilation, groups] = self.narrow([stride, padding, dilation, groups])?;
        // SAFETY: the pointer is to a live handle.
        let status = unsafe { (self.entries.cudnnCreateConvolutionDescriptor)(&mut self.descriptor) };
        self.checked("describing the convolution", status)?;
        let (of, made) = (&self.entries, self.descriptor);
        // Filters are not turned around, as ours are not.
        let mode = dnn::cudnnConvolutionMode_t::CUDNN_CROSS_CORRELATION as u32;
        let set = of.cudnnSetConvolution2dDescriptor;
        // SAFETY: the descriptor is live.
        let status = unsafe { set(made, padding, padding, stride, stride, dilation, dilation, mode, stored(precision.sum())) };
        self.checked("describing the convolution", status)?;
        // SAFETY: the descriptor is live.
        self.checked("taking groups", unsafe { (of.cudnnSetConvolutionGroupCount)(made, groups) })?;
        // SAFETY: the descriptor is live.
        self.checked("taking an arithmetic", unsafe { (of.cudnnSetConvolutionMathType)(made, math(precision)) })
    }

    fn narrow<const N: usize>(&self, sizes: [u64; N]) -> Result<[c_int; N]> {
        let mut narrow = [0; N];
        for (into, size) in narrow.iter_mut().zip(sizes) {
            *into = c_int::try_from(size).map_err(|_| Error::unsupported(&self.named.what, size, c_int::MAX))?;
        }
        Ok(narrow)
    }

    /// The algorithms that take the problem within the workspace.
    fn offered(&self) -> Result<Vec<usize>> {
        let (mut ways, mut refusal) = (Vec::new(), None);
        for (index, (algorithm, name)) in ALGORITHMS.into_iter().enumerate() {
            let mut bytes = 0;
            let size = self.entries.cudnnGetConvolutionForwardWorkspaceSize;
            // SAFETY: all objects are live, the pointer is to a live number.
            let status = unsafe { size(self.handle, self.input, self.filter, self.descriptor, self.output, algorithm as u32, &mut bytes) };
            match self.checked(name, status) {
                Ok(()) if bytes as u64 <= self.place.bytes => ways.push(index),
                Ok(()) => {
                    let what = format!("{}: {name}", self.named.what);
                    refusal = Some(Error::unsupported(what, format!("a workspace of {bytes} bytes"), self.place.bytes));
                }
                Err(why) => refusal = Some(why),
            }
        }
        match refusal {
            Some(why) if ways.is_empty() => Err(why),
            _ => Ok(ways),
        }
    }
}

impl Drop for Convolution {
    fn drop(&mut self) {
        let of = &self.entries;
        let end = |handle: Handle, destroy: unsafe extern "C" fn(Handle) -> u32| {
            if !handle.is_null() {
                // SAFETY: it is live and destroyed once; what it launched was waited for. A failure leaks it, which harms nobody.
                let _ = unsafe { destroy(handle) };
            }
        };
        end(self.descriptor, of.cudnnDestroyConvolutionDescriptor);
        end(self.filter, of.cudnnDestroyFilterDescriptor);
        end(self.output, of.cudnnDestroyTensorDescriptor);
        end(self.input, of.cudnnDestroyTensorDescriptor);
        end(self.handle, of.cudnnDestroy);
    }
}

/// Filters of one a channel, from row, column, channel to channel, row, column.
fn relaid(filters: &[u8], channels: usize, width: usize) -> Vec<u8> {
    let taps = filters.len() / width / channels;
    let tap = |c: usize, t: usize| &filters[(t * channels + c) * width..][..width];
    (0..channels).flat_map(|c| (0..taps).flat_map(move |t| tap(c, t).iter().copied())).collect()
}

impl Ready for Convolution {
    fn ways(&self) -> usize {
        self.ways.len()
    }

    fn named(&self, way: usize) -> String {
        // SAFETY: it takes nothing.
        let number = unsafe { (self.entries.cudnnGetVersion)() };
        format!("{} {}, {}", self.named.library, version(number), ALGORITHMS[self.ways[way]].1)
    }

    /// Filters of one a channel lie with the channel fastest, where the library wants it slowest. A network would keep them so: they are
    /// laid anew here once, outside of any timing.
    fn prepare(&mut self, sets: &[Vec<CUdeviceptr>]) -> Result<()> {
        let Conv { kh, kw, c_out, filter, .. } = self.conv;
        if filter == FilterLayout::Krsc {
            return Ok(());
        }
        for set in sets {
            let ours = download(set[1], kh * kw * c_out * self.width)?;
            let memory = Allocation::new(&self.context, ours.len() as u64)?;
            upload(memory.address(), &relaid(&ours, c_out as usize, self.width as usize))?;
            self.relaid.push(memory);
        }
        Ok(())
    }

    fn enqueue(&self, way: usize, set: usize, tensors: &[CUdeviceptr]) -> Result<()> {
        let filters = self.relaid.get(set).map_or(tensors[1], Allocation::address);
        let [x, f, y] = [tensors[0], filters, tensors[2]].map(|address| address as *mut c_void);
        let (algorithm, name) = ALGORITHMS[self.ways[way]];
        let (place, run) = (&self.place, self.entries.cudnnConvolutionForward);
        // SAFETY: all objects are live, the tensors are the plan's and of the descriptors' sizes, the workspace is of its size.
        let status = unsafe {
            run(
                self.handle,
                &ONE,
                self.input,
                x,
                self.filter,
                f,
                self.descriptor,
                algorithm as u32,
                place.workspace,
                place.bytes as usize,
                &ZERO,
                self.output,
                y,
            )
        };
        self.checked(name, status)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_of_a_channel_are_laid_together() {
        // Two taps of three channels, two bytes each.
        let ours = [1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6];
        assert_eq!(relaid(&ours, 3, 2), [1, 1, 4, 4, 2, 2, 5, 5, 3, 3, 6, 6]);
    }

    #[test]
    fn versions_read_as_their_vendor_writes_them() {
        assert_eq!((version(91_002), version(8907)), ("9.10.2".into(), "8.9.7".into()));
    }
}
