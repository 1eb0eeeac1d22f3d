//! Matrix products by cuBLAS (true f32) and cuBLASLt (matrix units, sums in f32).
//!
//! Both read matrices column by column. Ours lie row by row, which is their transpose read so: Cᵀ = Bᵀ · Aᵀ, with the operands exchanged and
//! nothing moved.

use std::ffi::{c_int, c_void};

use cudarc::cublas::sys as blas;
use cudarc::cublaslt::sys as lt;
use cudarc::driver::sys::CUdeviceptr;

use super::{Handle, Named, Place, Ready, entries, without};
use crate::error::{Error, Result};
use crate::op::DType;
use crate::plan::{Gemm, Precision};

/// Factors of the product and of what C held: a factor of 0 means that C is not read.
static ONE: f32 = 1.0;
static ZERO: f32 = 0.0;

/// Algorithms that cuBLASLt is asked for.
const PROPOSALS: usize = 8;

entries! { Blas from cublas:
    cublasCreate_v2(*mut Handle) -> u32;
    cublasDestroy_v2(Handle) -> u32;
    cublasGetVersion_v2(Handle, *mut c_int) -> u32;
    cublasSetStream_v2(Handle, Handle) -> u32;
    cublasSetWorkspace_v2(Handle, *mut c_void, usize) -> u32;
    cublasSetMathMode(Handle, u32) -> u32;
    cublasGemmEx(Handle, u32, u32, c_int, c_int, c_int, *const f32, *const c_void, u32, c_int, *const c_void, u32, c_int, *const f32, *mut c_void, u32, c_int, u32, c_int) -> u32;
}

entries! { Lt from cublaslt:
    cublasLtCreate(*mut Handle) -> u32;
    cublasLtDestroy(Handle) -> u32;
    cublasLtGetVersion() -> usize;
    cublasLtMatmulDescCreate(*mut Handle, u32, u32) -> u32;
    cublasLtMatmulDescDestroy(Handle) -> u32;
    cublasLtMatrixLayoutCreate(*mut Handle, u32, u64, u64, i64) -> u32;
    cublasLtMatrixLayoutDestroy(Handle) -> u32;
    cublasLtMatmulPreferenceCreate(*mut Handle) -> u32;
    cublasLtMatmulPreferenceSetAttribute(Handle, u32, *const c_void, usize) -> u32;
    cublasLtMatmulPreferenceDestroy(Handle) -> u32;
    cublasLtMatmulAlgoGetHeuristic(Handle, Handle, Handle, Handle, Handle, Handle, Handle, c_int, *mut Proposal, *mut c_int) -> u32;
    cublasLtMatmul(Handle, Handle, *const f32, *const c_void, Handle, *const c_void, Handle, *const f32, *const c_void, Handle, *mut c_void, Handle, *const lt::cublasLtMatmulAlgo_t, *mut c_void, usize, Handle) -> u32;
}

/// `cublasLtMatmulHeuristicResult_t`, its status as a number.
#[derive(Clone, Copy)]
#[repr(C)]
struct Proposal {
    algorithm: lt::cublasLtMatmulAlgo_t,
    workspace: usize,
    status: u32,
    waves: f32,
    reserved: [c_int; 4],
}

const NONE: Proposal =
    Proposal { algorithm: lt::cublasLtMatmulAlgo_t { data: [0; 8] }, workspace: 0, status: 0, waves: 0.0, reserved: [0; 4] };

/// Names of the statuses that both libraries share.
fn status_name(status: u32) -> &'static str {
    match status {
        1 => "CUBLAS_STATUS_NOT_INITIALIZED",
        3 => "CUBLAS_STATUS_ALLOC_FAILED",
        7 => "CUBLAS_STATUS_INVALID_VALUE",
        8 => "CUBLAS_STATUS_ARCH_MISMATCH",
        11 => "CUBLAS_STATUS_MAPPING_ERROR",
        13 => "CUBLAS_STATUS_EXECUTION_FAILED",
        14 => "CUBLAS_STATUS_INTERNAL_ERROR",
        15 => "CUBLAS_STATUS_NOT_SUPPORTED",
        16 => "CUBLAS_STATUS_LICENSE_ERROR",
        _ => "an unknown status",
    }
}

fn checked(named: &Named, doing: &str, status: u32) -> Result<()> {
    if status == 0 { Ok(()) } else { Err(named.failed(doing, status, status_name(status))) }
}

/// `13.0.2` of 130002.
fn version(number: u64) -> String {
    format!("{}.{}.{}", number / 10_000, number / 100 % 100, number % 100)
}

/// The number that stands for a storage type in both libraries.
const fn stored(dtype: DType) -> u32 {
    (match dtype {
        DType::F64 => lt::cudaDataType_t::CUDA_R_64F,
        DType::F32 => lt::cudaDataType_t::CUDA_R_32F,
        DType::F16 => lt::cudaDataType_t::CUDA_R_16F,
        DType::BF16 => lt::cudaDataType_t::CUDA_R_16BF,
        DType::U32 => lt::cudaDataType_t::CUDA_R_32U,
        DType::F8 => lt::cudaDataType_t::CUDA_R_8F_E4M3,
        DType::I8 => lt::cudaDataType_t::CUDA_R_8I,
        DType::I32 => lt::cudaDataType_t::CUDA_R_32I,
    }) as u32
}

/// How cuBLAS may compute in f32: pedantic, by no other sum of products than the plain one, or as it is by default, by no narrower type
/// either. Neither is always the faster.
const MODES: [(&str, blas::cublasMath_t, blas::cublasComputeType_t); 2] = [
    ("pedantic f32", blas::cublasMath_t::CUBLAS_PEDANTIC_MATH, blas::cublasComputeType_t::CUBLAS_COMPUTE_32F_PEDANTIC),
    ("default f32", blas::cublasMath_t::CUBLAS_DEFAULT_MATH, blas::cublasComputeType_t::CUBLAS_COMPUTE_32F),
];

/// cuBLAS in true f32.
pub struct Plain {
    named: Named,
    entries: Blas,
    handle: Handle,
    sizes: [c_int; 3],
    version: String,
}

impl Plain {
    /// Opens the library for one problem.
    ///
    /// # Errors
    /// The library's status, in our words.
    pub fn new(named: Named, gemm: &Gemm, place: Place) -> Result<Self> {
        let entries = Blas::find(|entry| without(named.library, entry))?;
        let narrow = |size: u64| c_int::try_from(size).map_err(|_| Error::unsupported(&named.what, size, c_int::MAX));
        let sizes = [narrow(gemm.m)?, narrow(gemm.n)?, narrow(gemm.k)?];
        let mut handle = std::ptr::null_mut();
        // SAFETY: the pointer is to a live handle.
        checked(&named, "starting", unsafe { (entries.cublasCreate_v2)(&mut handle) })?;
        // From here on the handle ends with its owner.
        let mut made = Plain { named, entries, handle, sizes, version: String::new() };
        let (named, of, mut number) = (&made.named, &made.entries, 0);
        // SAFETY: the handle is live, the pointer is to a live number.
        checked(named, "telling its version", unsafe { (of.cublasGetVersion_v2)(handle, &mut number) })?;
        // SAFETY: the stream outlives the handle. Setting it takes a workspace set before away, so it comes first.
        checked(named, "taking a stream", unsafe { (of.cublasSetStream_v2)(handle, place.stream) })?;
        // SAFETY: the workspace is of this size and outlives the handle.
        checked(named, "taking a workspace", unsafe { (of.cublasSetWorkspace_v2)(handle, place.workspace, place.bytes as usize) })?;
        made.version = version(number as u64);
        Ok(made)
    }
}

impl Drop for Plain {
    fn drop(&mut self) {
        // SAFETY: the handle is live and destroyed once; what it launched was waited for. A failure leaks it, which harms nobody.
        let _ = unsafe { (self.entries.cublasDestroy_v2)(self.handle) };
    }
}

impl Ready for Plain {
    fn ways(&self) -> usize {
        MODES.len()
    }

    fn named(&self, way: usize) -> String {
        format!("{} {}, {}", self.named.library, self.version, MODES[way].0)
    }

    fn prepare(&mut self, _sets: &[Vec<CUdeviceptr>]) -> Result<()> {
        Ok(())
    }

    fn enqueue(&self, way: usize, _set: usize, tensors: &[CUdeviceptr]) -> Result<()> {
        let (([m, n, k], f32s), (_, math, compute)) = ((self.sizes, stored(DType::F32)), MODES[way]);
        // SAFETY: the handle is live.
        checked(&self.named, "taking a mode", unsafe { (self.entries.cublasSetMathMode)(self.handle, math as u32) })?;
        let [a, b, c] = [0, 1, 2].map(|t| tensors[t] as *mut c_void);
        let plain = blas::cublasOperation_t::CUBLAS_OP_N as u32;
        let default = blas::cublasGemmAlgo_t::CUBLAS_GEMM_DFALT as c_int;
        // SAFETY: the handle is live, the tensors are the plan's and of these sizes, the factors are static.
        let status = unsafe {
            (self.entries.cublasGemmEx)(
                self.handle,
                plain,
                plain,
                n,
                m,
                k,
                &ONE,
                b,
                f32s,
                n,
                a,
                f32s,
                k,
                &ZERO,
                c,
                f32s,
                n,
                compute as u32,
                default,
            )
        };
        checked(&self.named, "multiplying", status)
    }
}

/// cuBLASLt, with the algorithms that it proposes.
pub struct Proposed {
    named: Named,
    entries: Lt,
    place: Place,
    handle: Handle,
    descriptor: Handle,
    /// Of B, A and C, the order in which the library takes them.
    layouts: [Handle; 3],
    preference: Handle,
    proposals: Vec<Proposal>,
    version: String,
}

impl Proposed {
    /// Opens the library and asks for algorithms for one problem.
    ///
    /// # Errors
    /// The library's status, in our words; [`Error::Unsupported`] where it proposes none.
    pub fn new(named: Named, gemm: &Gemm, precision: Precision, place: Place) -> Result<Self> {
        let entries = Lt::find(|entry| without(named.library, entry))?;
        let null = std::ptr::null_mut();
        let (layouts, proposals) = ([null; 3], Vec::new());
        // SAFETY: it takes nothing.
        let version = version(unsafe { (entries.cublasLtGetVersion)() } as u64);
        let mut made = Proposed { named, entries, place, handle: null, descriptor: null, layouts, preference: null, proposals, version };
        made.describe(gemm, precision)?;
        made.ask()?;
        Ok(made)
    }

    fn describe(&mut self, gemm: &Gemm, precision: Precision) -> Result<()> {
        let (named, of) = (&self.named, &self.entries);
        let compute = match precision {
            Precision::TF32 => lt::cublasComputeType_t::CUBLAS_COMPUTE_32F_FAST_TF32,
            _ => lt::cublasComputeType_t::CUBLAS_COMPUTE_32F,
        };
        // SAFETY: the pointer is to a live handle.
        checked(named, "starting", unsafe { (of.cublasLtCreate)(&mut self.handle) })?;
        // SAFETY: the same.
        let status = unsafe { (of.cublasLtMatmulDescCreate)(&mut self.descriptor, compute as u32, stored(DType::F32)) };
        checked(named, "describing the product", status)?;
        let storage = stored(precision.storage());
        let (m, n, k) = (gemm.m, gemm.n, gemm.k);
        // Rows of ours are columns there.
        for (layout, [columns, rows]) in self.layouts.iter_mut().zip([[n, k], [k, m], [n, m]]) {
            // SAFETY: the same.
            let status = unsafe { (of.cublasLtMatrixLayoutCreate)(layout, storage, columns, rows, columns as i64) };
            checked(named, "describing a matrix", status)?;
        }
        // SAFETY: the same.
        checked(named, "describing a wish", unsafe { (of.cublasLtMatmulPreferenceCreate)(&mut self.preference) })?;
        self.wish(lt::cublasLtMatmulPreferenceAttributes_t::CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, self.place.bytes)?;
        // Parts of a sum that is split along k are to be added in f32 too, not in the type of the output.
        let scheme = lt::cublasLtReductionScheme_t::CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE as u32;
        self.wish(lt::cublasLtMatmulPreferenceAttributes_t::CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, scheme)
    }

    fn wish<T>(&self, attribute: lt::cublasLtMatmulPreferenceAttributes_t, value: T) -> Result<()> {
        let at = (&raw const value).cast();
        // SAFETY: the preference is live; the value is, and of the size told.
        let status = unsafe { (self.entries.cublasLtMatmulPreferenceSetAttribute)(self.preference, attribute as u32, at, size_of::<T>()) };
        checked(&self.named, "taking a wish", status)
    }

    fn ask(&mut self) -> Result<()> {
        let (mut found, mut count) = ([NONE; PROPOSALS], 0);
        let [b, a, c] = self.layouts;
        // SAFETY: all objects are live; there is room for as many results as are asked for.
        let status = unsafe {
            (self.entries.cublasLtMatmulAlgoGetHeuristic)(
                self.handle,
                self.descriptor,
                b,
                a,
                c,
                c,
                self.preference,
                PROPOSALS as c_int,
                found.as_mut_ptr(),
                &mut count,
            )
        };
        checked(&self.named, "proposing algorithms", status)?;
        let usable = |p: &&Proposal| p.status == 0 && p.workspace as u64 <= self.place.bytes;
        self.proposals = found.iter().take(count.max(0) as usize).filter(usable).copied().collect();
        match self.proposals.is_empty() {
            true => Err(Error::unsupported(&self.named.what, format!("{} to propose an algorithm", self.named.library), "none")),
            false => Ok(()),
        }
    }
}

impl Drop for Proposed {
    fn drop(&mut self) {
        let of = &self.entries;
        let end = |handle: Handle, destroy: unsafe extern "C" fn(Handle) -> u32| {
            if !handle.is_null() {
                // SAFETY: it is live and destroyed once; what it launched was waited for. A failure leaks it, which harms nobody.
                let _ = unsafe { destroy(handle) };
            }
        };
        end(self.preference, of.cublasLtMatmulPreferenceDestroy);
        for layout in self.layouts {
            end(layout, of.cublasLtMatrixLayoutDestroy);
        }
        end(self.descriptor, of.cublasLtMatmulDescDestroy);
        end(self.handle, of.cublasLtDestroy);
    }
}

impl Ready for Proposed {
    fn ways(&self) -> usize {
        self.proposals.len()
    }

    fn named(&self, way: usize) -> String {
        format!("{} {}, number {} of the {} algorithms it proposes", self.named.library, self.version, way + 1, self.proposals.len())
    }

    fn prepare(&mut self, _sets: &[Vec<CUdeviceptr>]) -> Result<()> {
        Ok(())
    }

    fn enqueue(&self, way: usize, _set: usize, tensors: &[CUdeviceptr]) -> Result<()> {
        let [a, b, c] = [0, 1, 2].map(|t| tensors[t] as *mut c_void);
        let [of_b, of_a, of_c] = self.layouts;
        let (algorithm, place) = (&self.proposals[way].algorithm, &self.place);
        // SAFETY: all objects are live, the tensors are the plan's and of the layouts' sizes, the workspace is of its size.
        let status = unsafe {
            (self.entries.cublasLtMatmul)(
                self.handle,
                self.descriptor,
                &ONE,
                b,
                of_b,
                a,
                of_a,
                &ZERO,
                c,
                of_c,
                c,
                of_c,
                algorithm,
                place.workspace,
                place.bytes as usize,
                place.stream,
            )
        };
        checked(&self.named, "multiplying", status)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proposal_is_laid_out_as_the_header_has_it() {
        assert_eq!(size_of::<Proposal>(), size_of::<lt::cublasLtMatmulHeuristicResult_t>());
        assert_eq!(std::mem::offset_of!(Proposal, status), std::mem::offset_of!(lt::cublasLtMatmulHeuristicResult_t, state));
        assert_eq!(version(130_002), "13.0.2");
    }
}
