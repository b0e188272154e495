# `nix develop ./packaging/nix`, and then as everywhere: cargo run --release. Parsed and evaluated with a stand-in for nixpkgs, never built.
#
# A shell and not a package: the build fetches MLX's own library from its wheel, and packages of Nix build without a network.
{
  description = "An LLM server on MLX that never computes the same prompt prefix twice";

  inputs.nixpkgs.url = "nixpkgs";

  outputs = { nixpkgs, ... }:
    let
      systems = [ "x86_64-linux" "aarch64-linux" "aarch64-darwin" ];
      shell = system:
        let pkgs = nixpkgs.legacyPackages.${system};
        in pkgs.mkShell {
          packages = [ pkgs.cargo pkgs.rustc pkgs.just (pkgs.python3.withPackages (python: [ python.pip ])) ];
          # Which libclang the build reads headers with.
          LIBCLANG_PATH = "${pkgs.libclang.lib}/lib";
          # MLX's library is built for systems whose C++ library lies where every program finds it.
          LD_LIBRARY_PATH = pkgs.lib.optionalString pkgs.stdenv.isLinux "${pkgs.stdenv.cc.cc.lib}/lib";
        };
    in {
      devShells = nixpkgs.lib.genAttrs systems (system: { default = shell system; });
    };
}
