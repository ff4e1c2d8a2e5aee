//! The instructions by which loops are run, found at run time.

/// The instructions of one kind of processor.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Cpu {
    /// Those of every processor.
    Any,
    /// 256 bits at a time.
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// 512 bits at a time.
    #[cfg(target_arch = "x86_64")]
    Avx512,
}

impl Cpu {
    /// All that this processor can do, the widest last.
    pub fn available() -> Vec<Self> {
        let mut found = vec![Self::Any];
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("popcnt") {
                found.push(Self::Avx2);
            }
            let wide = is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512bw");
            if wide && is_x86_feature_detected!("avx512dq") && is_x86_feature_detected!("avx512vl") {
                found.push(Self::Avx512);
            }
        }
        found
    }

    /// The widest that this processor can do.
    pub fn detect() -> Self {
        *Self::available().last().unwrap_or(&Self::Any)
    }

    /// Runs work whose loops are inlined into it, with these instructions.
    #[inline(always)]
    pub fn run<W: Work>(self, work: W) -> W::Output {
        match self {
            // SAFETY: `available` names these only where the processor was found to have them.
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => unsafe { run_avx512(work) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => unsafe { run_avx2(work) },
            Self::Any => work.run(),
        }
    }
}

/// Something to be done; `run` and all loops in it are to be inlined.
pub trait Work {
    /// What comes of it.
    type Output;

    /// Does it.
    fn run(self) -> Self::Output;
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "popcnt,avx512f,avx512bw,avx512dq,avx512vl")]
fn run_avx512<W: Work>(work: W) -> W::Output {
    work.run()
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,popcnt")]
fn run_avx2<W: Work>(work: W) -> W::Output {
    work.run()
}
