-- Households and products as vectors: alternating least squares on what was known before the holdout weeks.
SELECT *
FROM factorize(train, factors => $factors, alpha => 2, regularization => 5)
