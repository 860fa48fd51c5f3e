"""The periodic table: symbols, atomic numbers, and families of elements."""

_SYMBOLS = (
    "H He Li Be B C N O F Ne Na Mg Al Si P S Cl Ar K Ca Sc Ti V Cr Mn Fe Co Ni Cu Zn Ga Ge As Se "
    "Br Kr Rb Sr Y Zr Nb Mo Tc Ru Rh Pd Ag Cd In Sn Sb Te I Xe Cs Ba La Ce Pr Nd Pm Sm Eu Gd Tb "
    "Dy Ho Er Tm Yb Lu Hf Ta W Re Os Ir Pt Au Hg Tl Pb Bi Po At Rn Fr Ra Ac Th Pa U Np Pu Am Cm "
    "Bk Cf Es Fm Md No Lr Rf Db Sg Bh Hs Mt Ds Rg Cn Nh Fl Mc Lv Ts Og"
)
SYMBOLS = _SYMBOLS.split()  # hydrogen to oganesson, by atomic number
NUMBER = {symbol: number for number, symbol in enumerate(SYMBOLS, start=1)}

# Each element up to lawrencium is in exactly one family: a group of the periodic table, or a row of
# the d or f block. Hydrogen forms a family of its own, lutetium is a lanthanide and lawrencium is
# an actinide. A pack's identity contains the elements of its split, so a pack made after a change
# to this table is a different pack.
_FAMILIES = {
    "hydrogen": "H",
    "alkali": "Li Na K Rb Cs Fr",
    "alkaline_earth": "Be Mg Ca Sr Ba Ra",
    "3d": "Sc Ti V Cr Mn Fe Co Ni Cu Zn",
    "4d": "Y Zr Nb Mo Tc Ru Rh Pd Ag Cd",
    "5d": "Hf Ta W Re Os Ir Pt Au Hg",
    "lanthanides": "La Ce Pr Nd Pm Sm Eu Gd Tb Dy Ho Er Tm Yb Lu",
    "actinides": "Ac Th Pa U Np Pu Am Cm Bk Cf Es Fm Md No Lr",
    "triels": "B Al Ga In Tl",
    "tetrels": "C Si Ge Sn Pb",
    "pnictogens": "N P As Sb Bi",
    "chalcogens": "O S Se Te Po",
    "halogens": "F Cl Br I At",
    "noble_gases": "He Ne Ar Kr Xe Rn",
}
FAMILIES = {name: tuple(symbols.split()) for name, symbols in _FAMILIES.items()}
