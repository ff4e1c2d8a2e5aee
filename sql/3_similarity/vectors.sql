-- Households and products as vectors whose products tell who likes what: alternating least squares.
-- grain: one row per household or product
-- key: side, id
SELECT *
FROM factorize(interactions, factors => $factors, alpha => 2, regularization => 5)
