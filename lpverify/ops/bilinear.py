from lpverify.ops.base import BilinearOp
class Multiply: pass
class MatMulValues: pass
